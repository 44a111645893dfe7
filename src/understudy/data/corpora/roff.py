"""Plain text of manual pages: roff's man and mdoc macros, stripped.

What is left is what a page looks like after a converter has stripped its tags: headings,
paragraphs, option lists. Tables, equations and macro definitions are dropped.
"""

from __future__ import annotations

import re

_NAMED = {
    "(em": "-", "(en": "-", "(hy": "-", "(lq": '"', "(rq": '"', "(oq": "'", "(cq": "'",
    "(aq": "'", "(dq": '"', "(bu": "*", "(co": "(c)", "(rg": "(r)", "(tm": "(tm)", "(ti": "~",
    "(ha": "^", "(mi": "-", "(pl": "+", "(mu": "x", "(de": " degrees", "(rs": "\\", "(bv": "|",
    "(ba": "|", "(lt": "<", "(gt": ">", "(<=": "<=", "(>=": ">=", "(->": "->", "(<-": "<-",
}  # fmt: skip
_ESCAPE = re.compile(
    r"\\(?:"
    r"(?P<font>f(?:\[[^\]]*\]|\(..|.))"
    r"|(?P<size>s(?:\[[^\]]*\]|[-+]?\d{1,2}|\([-+]?\d\d))"
    r"|(?P<string>\*(?:\[[^\]]*\]|\(..|.))"
    r"|(?P<register>n[-+]?(?:\[[^\]]*\]|\(..|.))"
    r"|(?P<motion>[hvwoDlLbBNRSXYZm](?:'[^']*'|\[[^\]]*\]))"
    r"|(?P<special>\(..|\[[^\]]*\])"
    r"|(?P<comment>[\"#].*)"
    r"|(?P<other>.)?)"
)
_STRINGS = {"lq": '"', "rq": '"', "R": "(r)", "Tm": "(tm)", "(lq": '"', "(rq": '"'}
_OTHER = {
    "e": "\\",
    "\\": "\\",
    "-": "-",
    " ": " ",
    "~": " ",
    "0": " ",
    "'": "'",
    "`": "`",
    ".": ".",
}
_PARAGRAPHS = frozenset("PP P LP sp Pp IP HP TP TQ br RS RE bp ti in Bl El Bd Ed D1 Dl".split())
_IGNORED = frozenset(
    "TH Dd Dt Os UE ME ad na hy nh ne ll ta tr ft fi nf ns rs EX EE PD DT UC AT ps vs ss so lf "
    "ds nr rm rn als ec eo cc mso ev pl po lt pc tm ab as ch wh UR_ Bk Ek Sm nop color fam".split()
)
_JOINED = frozenset("BR RB BI IB IR RI".split())
_MDOC_DROPPED = frozenset("Ns Op Oo Oc Xo Xc No Pf Sm Ta Li Va Vt Ft Fn Fa Fo Fc In Pa Ev".split())
_CALLABLE = {
    "Fl": "-", "Ar": "", "Nm": "", "Cm": "", "Em": "", "Sy": "", "Ql": "", "Dq": "", "Sq": "",
    "Pq": "", "Aq": "", "Xr": "", "Ic": "", "Dv": "", "Er": "", "Lk": "", "Mt": "", "An": "",
    "Ad": "", "Nd": "- ", "It": "", "Cd": "", "Brq": "", "Bq": "", "Qq": "", "St": "", "Bx": "",
    "Fx": "", "Nx": "", "Ox": "", "At": "", "Ux": "UNIX",
}  # fmt: skip
_IT_STYLE = frozenset("-tag -bullet -offset -width -compact -item -enum -dash -hang".split())


def _escape(found: re.Match[str]) -> str:
    if special := found["special"]:
        key = "(" + special[1:-1] if special[0] == "[" else special
        if key in _NAMED:
            return _NAMED[key]
        code = re.fullmatch(r"\(u([0-9A-F]{4,6})", key)
        if code and int(code[1], 16) < 0x110000:
            return chr(int(code[1], 16))
        return key[1:2] if key[2:3] in "'`:,^~*" else ""  # a letter with an accent: the letter
    if string := found["string"]:
        name = string[1:].strip("[]").removeprefix("(")
        return _STRINGS.get(name, "")
    if (other := found["other"]) is not None:
        return _OTHER.get(other, "")
    return ""


def _plain(text: str) -> str:
    return _ESCAPE.sub(_escape, text)


def _words(rest: str) -> list[str]:
    """Return the arguments of a macro: words, or what stands in double quotes."""
    found = re.findall(r'"((?:[^"]|"")*)"?|(\S+)', rest.split('\\"', 1)[0])
    return [_plain(quoted.replace('""', '"') if quoted else bare) for quoted, bare in found]


def _mdoc(name: str, words: list[str]) -> str:
    out: list[str] = []
    dash = _CALLABLE.get(name, "")
    for word in words:
        if word in _CALLABLE and len(word) <= 3:
            dash = _CALLABLE[word]
        elif word in _MDOC_DROPPED or word in _IT_STYLE:
            dash = ""
        else:
            out.append(dash + word)
            dash = ""
    return " ".join(out)


class _Page:
    """Collects paragraphs."""

    def __init__(self) -> None:
        self.blocks: list[str] = []
        self.words: list[str] = []
        self.name = ""

    def flush(self) -> None:
        text = " ".join(" ".join(self.words).split())
        if text:
            self.blocks.append(text)
        self.words = []

    def heading(self, title: str) -> None:
        self.flush()
        if title:
            self.blocks.append(title)

    def macro(self, name: str, rest: str) -> None:
        words = _words(rest)
        if name in ("SH", "SS", "Sh", "Ss"):
            self.heading(" ".join(words))
        elif name in _PARAGRAPHS:
            self.flush()
            if name == "IP" and words:
                self.words.append(words[0])
        elif name in _IGNORED:
            return
        elif name in _JOINED:
            self.words.append("".join(words))
        elif name == "Nm":
            self.name = self.name or (words[0] if words else "")
            self.words.append(_mdoc(name, words) or self.name)
        elif name in _CALLABLE or name in _MDOC_DROPPED:
            if name == "It":
                self.flush()
            self.words.append(_mdoc(name, words))
        elif name in ("B", "I", "SM", "SB", "R", "UR", "MT", "SY", "OP", "CW"):
            self.words.append(" ".join(words))


def roff_text(source: str) -> str:
    """Return the text of a manual page, blank lines between paragraphs; empty for a `.so` link."""
    page = _Page()
    skip_until = ""
    depth = 0
    for line in source.split("\n"):
        if skip_until:
            if re.match(skip_until, line):
                skip_until = ""
            continue
        if depth:  # a conditional block \{ ... \}
            depth += line.count("\\{") - line.count("\\}")
            continue
        found = re.match(r"^[.'][ \t]*([A-Za-z]{1,3}1?)\b(.*)$", line)
        if not found:
            if line[:1] in (".", "'") and re.match(r"^[.'][ \t]*(\\\"|$|\\)", line):
                continue
            page.words.append(_plain(line))
            if not line.strip():
                page.flush()
            continue
        name, rest = found.groups()
        if name in ("de", "de1", "am", "ig"):
            skip_until = r"^\.\.\s*$"
        elif name in ("TS", "EQ", "PS"):
            skip_until = rf"^\.{name[0]}E"
        elif name in ("if", "ie", "el", "while"):
            depth = max(0, line.count("\\{") - line.count("\\}"))
        else:
            page.macro(name, rest)
    page.flush()
    return "\n\n".join(page.blocks)
