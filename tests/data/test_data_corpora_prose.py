"""Prose out of reStructuredText, Markdown, HTML and roff, and cutting it into pieces."""

from hypothesis import given
from hypothesis import strategies as st

from understudy.data.corpora.document import clean_text, decode, pieces, text_key
from understudy.data.corpora.html_text import html_text
from understudy.data.corpora.prose import markdown_text, rst_text
from understudy.data.corpora.roff import roff_text

RST = """\
:mod:`thing` --- A title
========================

.. module:: thing
   :synopsis: Nothing.
.. a comment
   over two lines

This is a *first* paragraph
of two lines about :func:`~os.path.join` and ``literal`` with `a link <https://x.example>`_.

.. note::

   Keep this note.

.. code-block:: python

   gone = 1

Example::

   also gone

.. function:: call(a, b)
              call(a)

   Says what it does.

   :param int a: the first number
   :returns: a sum

>>> call(1, 2)
3

=====  =====
A      B
=====  =====
1      2
=====  =====

- one item
  goes on
- another
"""


def test_rst_keeps_prose_only():
    assert rst_text(RST).split("\n\n") == [
        "thing --- A title",
        "This is a first paragraph of two lines about os.path.join and literal with a link.",
        "Keep this note.",
        "Example:",
        "Says what it does.",
        "a: the first number",
        "a sum",
        "- one item goes on\n- another",
    ]


def test_numpy_docstring_sections_become_paragraphs():
    text = "Sum.\n\nParameters\n----------\na : int\n    The number.\n\nReturns\n-------\nint\n"
    assert rst_text(text) == "Sum.\n\nParameters\n\na : int The number.\n\nReturns\n\nint"


def test_markdown_keeps_prose_only():
    text = (
        "# Title #\n\n[![badge](https://x.example/a.svg)](https://x.example)\n\nSome **bold** and "
        "`code` in a\nline with [a link](https://x.example 'no').\n\n```python\ngone = 1\n```\n\n"
        "| a | b |\n|---|---|\n| 1 | 2 |\n\n    indented code\n\n> quoted &amp; kept\n\n"
        "[ref]: https://x.example\n- item\n"
    )
    found = markdown_text(text)
    assert found.split("\n\n") == [
        "Title",
        "Some bold and code in a line with [a link](https://x.example 'no').",
        "quoted & kept",
        "- item",
    ]
    assert markdown_text("[a link](https://x.example)") == "a link"


def test_html_drops_furniture_and_unclosed_tags_end_with_their_parent():
    page = (
        "<html><head><title>no</title></head><body><nav><ul><li>menu</nav><p>One\n  two "
        "<b>three</b>.<p>Next &lt;p&gt;<script>var no;</script><pre>x = 1\n  y</pre>"
        "<img src='a'>end<br>line</body>"
    )
    assert html_text(page) == "One two three.\n\nNext <p>\n\nend\nline"
    assert "x = 1\n  y" in html_text(page, code=True)


def test_roff_man_page():
    source = (
        '.\\" comment\n.TH LS 1\n.de XX\n.SH hidden\n..\n.SH NAME\nls \\- list \\fBdirectory\\fR\n'
        '.SH OPTIONS\n.TP\n.BR \\-a , " \\-\\-all"\ndo not ignore\n.PP\nA \\(lqquoted\\(rq word\n'
        ".TS\nl l.\na\tb\n.TE\n.if n \\{\\\n.ad l\n.\\}\nand \\e end\n"
    )
    assert roff_text(source).split("\n\n") == [
        "NAME",
        "ls - list directory",
        "OPTIONS",
        "-a, --all do not ignore",
        'A "quoted" word and \\ end',
    ]


def test_roff_mdoc_page():
    source = ".Dd May\n.Sh NAME\n.Nm tool\n.Nd do it\n.Sh SYNOPSIS\n.Nm\n.Op Fl v Ar file\n"
    assert roff_text(source).split("\n\n") == ["NAME", "tool - do it", "SYNOPSIS", "tool -v file"]
    assert roff_text(".so man1/other.1\n") == ""


@given(st.binary(max_size=300))
def test_bytes_always_decode_to_clean_text(data):
    text = decode(data)
    assert clean_text(text) == text
    assert "\r" not in text
    assert "\x00" not in text


def test_decode_honours_the_declared_coding():
    assert decode(b"# -*- coding: latin-1 -*-\nx = '\xe9'") == "# -*- coding: latin-1 -*-\nx = 'é'"
    assert decode("é".encode()) == "é"
    assert decode(b"# coding: no-such-codec\n\xe9") == "# coding: no-such-codec\né"


def test_text_key_ignores_case_and_space():
    assert text_key("A  b\nC") == text_key("a b c") != text_key("a bc")


@given(
    st.lists(st.text(st.sampled_from("ab \n"), min_size=1, max_size=60), max_size=12),
    st.integers(5, 80),
    st.integers(0, 20),
)
def test_pieces_lose_nothing_but_white_space(blocks, target, least):
    text = "\n\n".join(blocks)
    found = list(pieces(text, target, least))
    assert "".join("".join(found).split()) == "".join(text.split())
    # Whatever isn't the last piece has its length; the last is short only if it is alone.
    assert all(len(piece) >= target // 2 for piece in found[:-1])
    assert len(found) < 2 or len(found[-1]) >= min(least, target // 2)


def test_long_lines_are_cut_at_spaces_in_linear_time():
    found = list(pieces("word " * 400_000, 1000))
    assert max(map(len, found)) < 2100
    assert all(piece.strip().replace(" ", "").replace("word", "") == "" for piece in found)
