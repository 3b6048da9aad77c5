"""The whole site as one HTML file that can be mailed: its pages one below the other, with all they need."""

from __future__ import annotations

import base64
import mimetypes
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import jinja2
from bs4 import BeautifulSoup, Tag

from cxrlib.report.site.offline import SEALED

_URL = re.compile(r"""url\(\s*(['"]?)([^'")]+)\1\s*\)""")
_POINTERS = ("for", "aria-labelledby", "aria-describedby", "aria-controls", "headers")
_CARRIED = (".json",)  # what links lead to and is small enough to come along


def one_file(site: Path) -> str:
    """A rendered site's pages, in the order of its contents, as one HTML page.

    Links between pages become anchors; styles, fonts and pictures become part of the file; so do the recorded
    numbers that a link leads to, but not the notebooks. Of scripts only the explorer's come along.

    - ``site``: the folder with ``index.html``.
    """
    index = _read(site / "index.html")
    links = index.select("nav.bd-links a.internal")
    titles = {"index": "What was found"}
    titles |= {Path(str(link["href"])).stem: link.get_text(" ", strip=True) for link in links}
    titles.pop("reference", None)  # of the package: it is in the report's folder
    soups = {name: index if name == "index" else _read(site / f"{name}.html") for name in titles}
    for again in [data for soup in soups.values() for data in soup.select(".cxr-index, .cxr-data")][2:]:
        again.decompose()  # one explorer takes its data from another
    styles = {
        urlsplit(str(link["href"])).path: None
        for soup in soups.values()
        for link in soup.select('link[rel="stylesheet"]')
    }
    template = (Path(__file__).parent / "templates" / "one_file.html.j2").read_text(encoding="utf-8")
    return jinja2.Template(template, autoescape=True, trim_blocks=True, lstrip_blocks=True).render(
        title=index.h1.find(string=True, recursive=False) if index.h1 else "",
        policy=SEALED,
        print_script=(Path(__file__).parent / "static" / "print.js").read_text(encoding="utf-8"),
        styles=[_style(site / unquote(path)) for path in styles],
        titles=titles,
        articles={name: _article(site, name, soup, set(titles)) for name, soup in soups.items()},
    )


def _read(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def _article(site: Path, page: str, soup: BeautifulSoup, pages: set[str]) -> str:
    """A page's own text, with its ids made unique, its links turned to anchors and its pictures inside."""
    article = soup.select_one("article") or soup
    for script in article.find_all("script"):
        if not script.find_parent(class_="cxr-embedded"):
            script.decompose()
    for table in article.select(".pst-scrollable-table-container"):  # on a page of its own a script does this
        table["tabindex"] = "0"
    for element in article.find_all(True):
        if element.get("id"):
            element["id"] = f"{page}--{element['id']}"
        for name in _POINTERS:
            if value := element.get(name):
                words = value if isinstance(value, list) else value.split()
                element[name] = " ".join(f"{page}--{word}" for word in words)
        if element.get("src"):
            address = str(element["src"])
            element["src"] = _data(site / unquote(urlsplit(address).path), address)
        if element.get("href"):
            _turn(element, site, page, pages)
    return article.decode_contents()


def _turn(link: Tag, site: Path, page: str, pages: set[str]) -> None:
    """Make a link lead to its place in the one file, or to a file inside it, or to nothing at all."""
    url = urlsplit(str(link["href"]))
    if url.scheme or url.netloc:
        return
    target = unquote(url.path)
    name = Path(target).stem if target.endswith(".html") else page if not target else None
    if name in pages:
        link["href"] = f"#{name}--{unquote(url.fragment)}" if url.fragment else f"#{name}"
    elif target.endswith(_CARRIED) and (site / target).is_file():
        link["href"] = _data(site / target, target)
        link["download"] = Path(target).name
    else:
        del link["href"]
        link["title"] = f"{target}, in the report's folder"


def _style(path: Path) -> str:
    """A style sheet with what it refers to inside."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"/\*# sourceMappingURL=.*?\*/", "", text)
    imported = re.compile(r"""@import\s+(?:url\()?["']([^"']+)["']\)?;""")
    text = imported.sub(lambda found: _style(path.parent / urlsplit(found[1]).path), text)
    text = _URL.sub(lambda found: f'url("{_data(path.parent / urlsplit(found[2]).path, found[2])}")', text)
    return text.replace("</", "<\\/")


def _data(path: Path, otherwise: str) -> str:
    """A file as a ``data:`` address; what is one already stays, and what is not there is empty."""
    if otherwise.startswith(("data:", "#")):
        return otherwise
    if not path.is_file():
        return "data:,"
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
