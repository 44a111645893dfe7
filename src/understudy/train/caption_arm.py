"""Which captions a pretraining arm learns from, as an expression over a store's columns.

| expression | a pair's caption |
| --- | --- |
| `text` | the real one, of any column of texts |
| `caption.coca` | a synthetic one of that captioner |
| `0.3*text + 0.7*caption.coca` | one of both, drawn by these odds for each pair |
| `text & caption.coca` | both, with a loss each |

Arms of arXiv 2405.08911 differ in this alone; distillation (`lam`) is set beside it, so that the
effect of captions and the effect of teachers can be told apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from understudy.core.errors import ConfigError
from understudy.train.student_config import StudentConfig

PREFIX = "caption."
_TERM = re.compile(r"\s*(?:([0-9]*\.?[0-9]+)\s*\*)?\s*([A-Za-z][\w.\-/@]*)\s*")
_NAME = re.compile(r"[A-Za-z0-9][\w.\-]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionArm:
    """An arm's captions.

    Attributes:
        name: of the arm.
        captions: `real`, `syn`, `mix` or `both`, as in `StudentConfig`.
        text: column of real texts; empty for none.
        captioner: whose synthetic captions; empty for none.
        mix: share of synthetic captions for `mix`.
    """

    name: str
    captions: Literal["real", "syn", "mix", "both"]
    text: str = ""
    captioner: str = ""
    mix: float = 0.5

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that hold the arm's captions."""
        found = (self.text, f"{PREFIX}{self.captioner}" if self.captioner else "")
        return tuple(name for name in found if name)

    @property
    def odds(self) -> dict[str, float]:
        """How often each column gives a pair's caption: column -> share."""
        if len(self.columns) == 1:
            return {self.columns[0]: 1.0}
        share = self.mix if self.captions == "mix" else 0.5
        return dict(zip(self.columns, (1 - share, share), strict=True))

    def student(self, config: StudentConfig) -> StudentConfig:
        """Return a student's configuration with this arm's captions."""
        return replace(
            config,
            captions=self.captions,
            text_column=self.text or config.text_column,
            captioner=self.captioner,
            mix=self.mix,
        )


def parse_arm(text: str) -> CaptionArm:
    """Return the arm that `NAME=EXPRESSION`, or an expression that names itself, describes.

    Raises:
        ConfigError: an empty or malformed expression, or one with several sources of a kind.
    """
    name, equals, expression = text.partition("=")
    if not equals:
        name, expression = "", text
    name, expression = name.strip(), expression.strip()
    if not expression:
        raise ConfigError(
            f"captions arm {text!r}: the expression is empty; give columns, such as 'text', "
            "'caption.coca', '0.5*text + 0.5*caption.coca' or 'text & caption.coca'."
        )
    name = name or re.sub(r"[^\w.\-]+", "_", expression)
    if not _NAME.fullmatch(name):
        raise ConfigError(f"captions arm {text!r}: '{name}' is no name of letters and digits.")
    both = "&" in expression
    if both and "+" in expression:
        raise ConfigError(f"captions arm {text!r}: use '+' (one of both) or '&' (both), not both.")
    parts = [_term(part, text) for part in re.split(r"[&+]", expression)]
    if both and any(weight is not None for weight, _ in parts):
        raise ConfigError(f"captions arm {text!r}: odds belong to '+'; '&' takes both captions.")
    real = [(w, c) for w, c in parts if not c.startswith(PREFIX)]
    syn = [(w, c.removeprefix(PREFIX)) for w, c in parts if c.startswith(PREFIX)]
    if len(real) > 1 or len(syn) > 1:
        raise ConfigError(
            f"captions arm {text!r}: at most one column of texts and one captioner; write further "
            "captions as another captioner's column."
        )
    if len(parts) == 1:
        if real:
            return CaptionArm(name=name, captions="real", text=real[0][1])
        return CaptionArm(name=name, captions="syn", captioner=syn[0][1])
    mix = 0.5
    if not both:
        odds = [1.0 if w is None else w for w in (real[0][0], syn[0][0])]
        if min(odds) <= 0:
            raise ConfigError(f"captions arm {text!r}: odds must be above 0, got {odds}.")
        mix = odds[1] / sum(odds)
    return CaptionArm(
        name=name,
        captions="both" if both else "mix",
        text=real[0][1],
        captioner=syn[0][1],
        mix=mix,
    )


def _term(part: str, text: str) -> tuple[float | None, str]:
    found = _TERM.fullmatch(part)
    if found is None:
        raise ConfigError(
            f"captions arm {text!r}: {part.strip()!r} is no column; expected a name, or ODDS*NAME."
        )
    return (None if found[1] is None else float(found[1])), found[2]
