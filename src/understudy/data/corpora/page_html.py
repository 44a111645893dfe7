"""Documents as web pages with the furniture that extraction has to remove."""

from __future__ import annotations

import html

from understudy.core.seeds import rng
from understudy.data.corpora.document import Document, paragraphs

_MENU = (
    "Home", "Products", "Docs", "Blog", "Pricing", "Community", "Support", "Download", "Login",
    "Register", "Archive", "Careers", "Status", "Forum", "Wiki", "Newsletter", "Press", "Shop",
)  # fmt: skip
_SIDE = (
    "Related pages", "Popular this week", "Tags", "Recent comments", "Table of contents",
    "Subscribe to our newsletter", "Follow us",
)  # fmt: skip
_COOKIES = (
    "This site uses cookies to give you the best experience. By continuing you accept their use.",
    "We value your privacy. Accept all cookies or manage your preferences.",
)
_PREFORMATTED = frozenset({"log", "dump", "minified", "source", "stdlib", "licence"})


def _site(url: str) -> str:
    return url.split("://", 1)[-1].split("/", 1)[0]


def _title(document: Document) -> str:
    name = document.id.split("#")[0].rsplit("/", 1)[-1]
    return f"{name} - {_site(document.url)}"


def _menu(site: str) -> str:
    chosen = rng("menu", site).choice(_MENU, 7, replace=False)
    return "".join(f'<li><a href="/{word.lower()}">{word}</a></li>' for word in chosen)


def _side(site: str) -> str:
    random = rng("side", site)
    title = html.escape(str(random.choice(_SIDE)))
    chosen = random.choice(_MENU, 5, replace=False)
    items = "".join(
        f'<li><a href="/{w.lower()}/{i}">{w} {i}</a></li>' for i, w in enumerate(chosen)
    )
    return f"<aside class='sidebar'><h4>{title}</h4><ul>{items}</ul></aside>"


def _body(document: Document) -> str:
    if document.source in _PREFORMATTED:
        return f"<pre>{html.escape(document.text)}</pre>"
    out = []
    for block in paragraphs(document.text):
        lines = block.split("\n")
        if len(lines) > 1 and all(line.lstrip()[:2] in ("- ", "* ") for line in lines):
            items = "".join(f"<li>{html.escape(line.lstrip()[2:])}</li>" for line in lines)
            out.append(f"<ul>{items}</ul>")
        else:
            out.append(f"<p>{'<br>'.join(html.escape(line) for line in lines)}</p>")
    return "\n".join(out)


def html_page(document: Document) -> str:
    """Return a document as a web page: menu, side bar, cookie notice and footer around its text.

    Pages of one host share their furniture. Code, dumps, logs and licences are preformatted, all
    else is paragraphs and lists, so that extraction can bring back the text.
    """
    site = _site(document.url)
    title = html.escape(_title(document))
    cookies = str(rng("cookies", site).choice(_COOKIES))
    return f"""<!DOCTYPE html>
<html lang="{html.escape(document.facts.get("language", "en"))}">
<head><meta charset="utf-8"><title>{title}</title>
<style>nav ul {{ list-style: none; }} .sidebar {{ float: right; }}</style>
<script>window.layer = window.layer || []; function track(e) {{ layer.push(e); }}</script>
</head>
<body>
<header><nav><ul>{_menu(site)}</ul></nav></header>
<div class="cookie-banner">{cookies} <button>Accept</button></div>
{_side(site)}
<main><article>
<h1>{title}</h1>
{_body(document)}
</article></main>
<footer><p>&copy; {html.escape(site)}. All rights reserved. <a href="/terms">Terms</a> |
<a href="/privacy">Privacy</a></p></footer>
</body>
</html>
"""
