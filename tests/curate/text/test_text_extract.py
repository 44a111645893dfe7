"""Extraction of text from HTML."""

from __future__ import annotations

import importlib

import pytest

from understudy.core.errors import ConfigError, MissingExtraError
from understudy.curate.engine.pages import Page
from understudy.curate.text.extract import Extract
from understudy.curate.text.html_plain import visible_text

HTML = """<!DOCTYPE html><html><head><title>Title</title><style>p {color: red}</style>
<script>var hidden = "<p>script</p>";</script></head><body>
<nav><ul><li><a href="/">Home</a></li><li><a href="/a">About</a></li></ul></nav>
<main><h1>Heading</h1><p>The first paragraph of the page &amp; a   sentence
that goes on for long enough to be what the page is about.</p>
<p>A second paragraph, with <b>bold</b> words and an end.</p></main>
<footer>Copyright of nobody</footer></body></html>"""


WEB = '{"Content-Type": "text/html; charset=utf-8", "form": "markup"}'


def page(text: str = HTML, metadata: str = WEB) -> Page:
    return Page(id="a", text=text, metadata=metadata)


@pytest.mark.parametrize("method", ["resiliparse", "trafilatura", "plain"])
def test_main_text(method):
    if method != "plain":
        pytest.importorskip(method)
    item, stage = page(), Extract(method=method)
    assert stage.pages(item) == [item]
    assert "The first paragraph of the page & a sentence that goes on" in item.text
    assert "A second paragraph, with bold words and an end." in item.text
    assert "script" not in item.text
    assert "color" not in item.text
    assert ("Home" in item.text) == ("Copyright" in item.text) == (method == "plain")
    assert item.facts() == {"Content-Type": "text/html; charset=utf-8", "extracted": method}
    # once is enough: text that looks like markup is not taken for it
    item.text = "a <b> c"
    assert stage.pages(item)[0].text == "a <b> c"
    assert stage.describe()["method"] == method
    assert ("version" in stage.describe()) == (method != "plain")


@pytest.mark.parametrize("method", ["resiliparse", "trafilatura"])
def test_whole_text(method):
    pytest.importorskip(method)
    item = page()
    Extract(method=method, main_content=False).pages(item)
    assert "Home" in item.text


@pytest.mark.parametrize("metadata", ["{}", '{"Content-Type": "text/html"}', ""])
def test_other_pages_are_left_alone(metadata):
    item = page("<p>x</p>", metadata)
    assert Extract(method="plain").pages(item) == [item]
    assert item.text == "<p>x</p>"
    assert Extract(method="plain", every=True).pages(item)[0].text == "x"


def test_drops():
    stage = Extract(method="plain")
    assert stage.pages(page("<script>x</script>")) == []
    assert stage.reason() == "no text"

    def fail(html: str) -> str:
        raise ValueError(html)

    stage._text = fail
    assert stage.pages(page()) == []
    assert stage.reason() == "cannot be parsed"


def test_bad_settings(monkeypatch):
    with pytest.raises(ConfigError, match="extract: method must be one of resiliparse, trafil"):
        Extract(method="readability")
    real = importlib.import_module

    def fail(name, *args):
        if name.split(".")[0] in ("resiliparse", "trafilatura"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name.split(".")[0])
        return real(name, *args)

    monkeypatch.setattr("understudy.core.lazy.importlib.import_module", fail)
    for method in ("resiliparse", "trafilatura"):
        with pytest.raises(MissingExtraError, match=rf"by {method} needs .*understudy\[curate\]"):
            Extract(method=method)
    assert Extract(method="plain").pages(page())


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("a <b>b</b>c", "a bc"),
        ("<p>a</p><p>b</p>", "a\n\nb"),
        ("a<br>b<div>c</div>d", "a\nb\nc\nd"),
        ("<ul><li>a<li>b</ul>", "a\nb"),
        ("<table><tr><td>a<td>b<tr><td>c</table>", "a b\nc"),
        ("<pre>x\n   y</pre>", "x\n   y"),
        ("a<script>b</script>c<style>d</style>e<!-- f -->g", "aceg"),
        ("<div hidden>a<div>b</div></div>c", "c"),
        ("<input hidden>c", "c"),
        ("<head><title>t</title><body>a", "a"),
        ("&lt;x&gt; &eacute;&#8217;", "<x> \xe9\u2019"),
        ("plain text", "plain text"),
        ("", ""),
    ],
)
def test_visible_text(html, text):
    assert visible_text(html) == text
