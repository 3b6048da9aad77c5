"""What notebooks put out, as text and tables only: names of columns and files come from strangers."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

_TAGS = {
    "table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td", "div", "p", "pre", "code", "span", "br",
    "details", "summary", "strong",
}  # fmt: skip
_ATTRIBUTES = {
    "class", "id", "border", "rowspan", "colspan", "scope", "valign", "name", "role", "aria-labelledby",
}  # fmt: skip
_ALIGN = re.compile(r"text-align: ?(left|right|center);?")
_STYLE = re.compile(r"\s*(<div>\s*)?<style\b[^>]*>([^<]*)</style>", re.IGNORECASE)
_FETCHES = re.compile(r"url|@import|\\|expression", re.IGNORECASE)


def safe_html(text: str) -> str:
    """HTML of tables; any other tag, script and address in it becomes text.

    A style sheet is kept where the output begins with it, as pandas' do, and fetches nothing.
    """
    begun = _STYLE.match(text)
    kept = ""
    if begun:
        text = (begun[1] or "") + text[begun.end() :]
        kept = "" if _FETCHES.search(begun[2]) else f'<style type="text/css">{begun[2]}</style>'
    parser = _Tables()
    parser.feed(text)
    parser.close()
    return kept + "".join(parser.parts)


def safe_markdown(text: str) -> str:
    """Markdown in which no tag is one and no picture is fetched."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text).replace("![", r"!\[")


class _Tables(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _TAGS:
            self.parts.append(html.escape(self.get_starttag_text() or f"<{tag}>"))
            return
        kept = [(k, v) for k, v in attrs if k in _ATTRIBUTES or (k == "style" and _ALIGN.fullmatch(v or ""))]
        said = "".join(f' {name}="{html.escape(value or "", quote=True)}"' for name, value in kept)
        self.parts.append(f"<{tag}{said}>")

    def handle_endtag(self, tag: str) -> None:
        self.parts.append(f"</{tag}>" if tag in _TAGS else html.escape(f"</{tag}>"))

    def handle_data(self, data: str) -> None:
        self.parts.append(html.escape(data, quote=False))
