"""The project's ``docs/`` and cards as pages of the report, with links that lead to its own pages."""

from __future__ import annotations

import posixpath
import re
import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from cxrlib.report.site.build import HERE, write_text

FOLDERS = ("docs", "cards", "cxrlib/lungs/data")
_LINK = re.compile(r"(!?)\[([^]]*)\]\(([^)#\s]*)(#[^)]*)?\)")


def write_docs(root: Path, source: Path, out: Path, chapters: Iterable[str]) -> list[str]:
    """Write the pages of :data:`FOLDERS` into ``source``, cards as ``card_NAME``; returns the others' names.

    - ``root``: the project; a folder that is not there has no pages.
    - ``out``: the report, which gets a copy of the benchmarks that the pages link to, as ``source`` does.
    - ``chapters``: to which links may lead. A link to what is no part of the report becomes text.
    """
    docs = {path: path.stem for path in sorted((root / FOLDERS[0]).glob("*.md"))}
    cards = {
        path: f"card_{path.stem}" for folder in FOLDERS[1:] for path in sorted((root / folder).glob("*.md"))
    }
    known = {path.relative_to(root).as_posix(): f"{name}.md" for path, name in (docs | cards).items()}
    known |= {f"notebooks/{name}.ipynb": f"{name}.ipynb" for name in chapters} | {"README.md": "index.md"}
    known |= {f"cxrlib/report/site/pages/{path.name}": path.name for path in (HERE / "pages").glob("*.md")}

    def turned(link: re.Match[str], place: str) -> str:
        picture, said, target, anchor = link[1], link[2], link[3], link[4] or ""
        if not target or ":" in target:
            return link[0]
        inside = posixpath.normpath(posixpath.join(place, target))
        is_file = (root / inside).is_file()
        if inside.startswith("benchmarks/") and is_file:
            for folder in (out, source):
                (folder / "benchmarks").mkdir(parents=True, exist_ok=True)
                shutil.copyfile(root / inside, folder / inside)
        elif not (inside.startswith("figures/") and is_file):
            if inside not in known:
                return said
            inside = known[inside]
        return f"{picture}[{said}]({inside}{anchor})"

    for path, name in (docs | cards).items():
        place = path.parent.relative_to(root).as_posix()
        text = _LINK.sub(partial(turned, place=place), path.read_text(encoding="utf-8"))
        if path in cards:  # reached from the page on data, and in no list of contents
            text = f"---\norphan: true\n---\n\n{text}"
        write_text(source / f"{name}.md", text)
    return list(docs.values())
