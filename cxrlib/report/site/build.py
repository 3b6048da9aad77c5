"""From executed notebooks and recorded numbers to the site: sources for Sphinx, then Sphinx itself."""

from __future__ import annotations

import filecmp
import hashlib
import json
import os
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TextIO

import jinja2
import nbformat

from cxrlib.errors import CxrError
from cxrlib.evaluation.metrics import Estimate
from cxrlib.io.storage import atomic_path
from cxrlib.report.batch import Outcome
from cxrlib.report.explorer import SLOT
from cxrlib.report.site import chapters, first_page
from cxrlib.report.site.comparison import RULE, STATUSES, Comparison
from cxrlib.report.site.scoreboard import Evidence, scoreboard
from cxrlib.report.site.single_file import one_file

HERE = Path(__file__).parent
MARKER = "site.sha256"
"""In ``.build``: the hash of what the site was made from. Not there while it is out of date."""
SINGLE_FILE = "report.html"
SLIDES = "slides.html"
# nbformat's functions have no types of their own.
_empty_notebook: Callable[[], nbformat.NotebookNode] = nbformat.v4.new_notebook
_as_text: Callable[[nbformat.NotebookNode], str] = nbformat.writes
WORDS = {"done": "done", "waiting": "is being made", "failed": "✗ stopped with an error", "died": "✗ died"}


@dataclass(frozen=True)
class Chapter:
    """One notebook as the landing page lists it."""

    name: str
    title: str
    status: str
    seconds: float

    @property
    def mark(self) -> str:
        """What stands before the title in the list of contents."""
        return "✗ " if self.status in ("failed", "died") else ""


def write_sources(
    source: Path,
    out: Path,
    executed: Mapping[str, Path],
    outcomes: Mapping[str, Outcome],
    names: Mapping[str, str],
    rerun: Mapping[str, str],
) -> list[Chapter]:
    """Write the chapters: cleaned to ``out/notebooks`` for readers, decorated to ``source`` for Sphinx.

    - ``executed``: Notebook's name to the file that papermill left.
    - ``names``: folders to what stands for them; see :func:`cxrlib.report.site.chapters.clean`.
    - ``rerun``: Notebook's name to the command that runs it alone.
    """
    listed = []
    _empty(source, "*.ipynb", keep=outcomes)
    _empty(out / "notebooks", "*.ipynb", keep=outcomes)
    for name, outcome in outcomes.items():
        notebook = _empty_notebook()
        with suppress(OSError, ValueError):  # not there, or cut short when its process was killed
            notebook = chapters.read_notebook(executed[name])
        notebook = chapters.clean(notebook, names)
        waits = outcome.status == "waiting"
        write_text(out / "notebooks" / f"{name}.ipynb", None if waits else _as_text(notebook))
        notebook = chapters.decorate(notebook, outcome, rerun[name])
        write_text(source / f"{name}.ipynb", _as_text(notebook))
        listed.append(Chapter(name, chapters.title(notebook, name), outcome.status, outcome.seconds))
    return listed


def fill(template: str, **values: object) -> str:
    """One of the templates, filled in; what is filled in is escaped for HTML."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return templates.get_template(template).render(values)


def write_reference(source: Path, listed: Sequence[Chapter] = (), *, api: bool = True) -> None:
    """Write the pages by hand: for instructors, scaling out, glossary, bibliography.

    - ``listed``: which the instructors' page links to, with the minutes that they took.
    - ``api``: also the reference of the package, which takes a dozen seconds to render.
    """
    took = {c.name: f"{c.seconds / 60:.1f} min" if c.status != "waiting" else "–" for c in listed}
    for path in (HERE / "pages").glob("*.md"):
        text = path.read_text(encoding="utf-8")
        if path.stem == "instructors":
            text = re.sub(r"\{minutes:(\w+)\}", lambda m: took.get(m[1], "–"), text)
            text = re.sub(r"\[([^]]+)\]\((\w+)\.ipynb\)", lambda m: m[0 if m[2] in took else 1], text)
        write_text(source / path.name, None if path.stem == "reference" and not api else text)


def write_pages(
    source: Path,
    listed: list[Chapter],
    evidence: list[Evidence],
    manifest: Mapping[str, object],
    comparison: Comparison | None = None,
    *,
    docs: Sequence[str] = (),
    single_file: bool = False,
    slides: bool = False,
    api: bool = True,
) -> None:
    """Write the landing page and the other pages that are no chapters for Sphinx; ``docs`` are there."""
    names = {chapter.name for chapter in listed}
    rows, datasets = scoreboard(evidence, str(manifest["dataset"]))
    index = fill(
        "index.md.j2",
        said=first_page.said,
        explorer=SLOT,
        findings=first_page.findings(evidence),
        course=first_page.table("first_page"),
        docs=docs,
        slides=SLIDES if slides else None,
        compared=comparison is not None,
        api=api,
        single_file=SINGLE_FILE if single_file else None,
        chapters=listed,
        stopped=[chapter for chapter in listed if chapter.mark],
        waiting=[chapter for chapter in listed if chapter.status == "waiting"],
        rows=rows,
        datasets=datasets,
        names=names,
        manifest=manifest,
        words=WORDS,
    )
    write_text(source / "index.md", index)
    place = lambda item: (item.dataset, item.notebook)  # noqa: E731
    groups = [(key, list(items)) for key, items in groupby(sorted(evidence, key=place), key=place)]
    write_text(source / "numbers.md", fill("numbers.md.j2", groups=groups, names=names, show=shown))
    changed = None
    if comparison is not None:
        values = {"comparison": comparison, "show": shown, "words": STATUSES, "rule": RULE}
        changed = fill("comparison.md.j2", **values)
    write_text(source / "comparison.md", changed)
    write_reference(source, listed, api=api)


def build(source: Path, out: Path, work: Path, *, single_file: bool = False, whole: bool = True) -> None:
    """Run Sphinx, unless the site is already that of these sources; with ``single_file`` also write one file.

    - ``whole``: False while chapters are missing, so that the site is not taken for finished.
    - Raises CxrError: sphinx failed; its last words and the log are named.
    """
    marker, digest = work / MARKER, _digest(source)
    if not ((out / "index.html").is_file() and marker.is_file() and marker.read_text() == digest):
        marker.unlink(missing_ok=True)
        _run_sphinx(source, out, work)
        if whole:
            marker.write_text(digest)
    if single_file:
        write_text(out / SINGLE_FILE, one_file(out))


def _run_sphinx(source: Path, out: Path, work: Path) -> None:
    log = work / "sphinx.log"
    # Not straight into ``out``: myst-nb leaves a folder of images beside the one it renders to.
    rendered, began, ended = work / "site", work / "rendering", work / "rendered"
    if began.exists() or (ended.exists() and ended.stat().st_mtime > time.time()):
        # Killed on the way, or the clock was set back since: Sphinx goes by times, and would take a page cut
        # short for a new one, or a new source for an old one.
        for folder in (rendered, work / "doctrees"):
            shutil.rmtree(folder, ignore_errors=True)
    began.touch()
    # Every page has the list of contents, of which Sphinx does not know.
    contents = (source / "index.md").read_text(encoding="utf-8").rpartition("{toctree}")[2]
    listed = work / "contents"
    others = not (listed.is_file() and listed.read_text(encoding="utf-8") == contents)
    with open(log, "w", encoding="utf-8") as warnings:
        try:
            _sphinx(source, rendered, work / "doctrees", others, warnings)
        except Exception as error:  # of Sphinx, its extensions or docutils
            warnings.write(traceback.format_exc())
            words = " ".join(str(error).split()) or type(error).__name__
            raise CxrError(f"Sphinx could not render the report: {words}", remedy=f"Read {log}.") from error
    _copy_tree(rendered, out, ignore=shutil.ignore_patterns(".buildinfo*"))
    pages = {path.stem for path in source.iterdir()} | {"search"}
    for page in out.glob("*.html"):
        if page.stem not in pages:
            page.unlink()
    listed.write_text(contents, encoding="utf-8")
    os.replace(began, ended)
    os.utime(ended)


def _sphinx(source: Path, rendered: Path, doctrees: Path, every_page: bool, warnings: TextIO) -> None:
    """Sphinx in this process: its imports, two seconds, are paid once for all drawings."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    with patch_docutils(HERE), docutils_namespace():
        app = Sphinx(source, HERE, rendered, doctrees, "html", status=None, warning=warnings)
        app.build(force_all=every_page)


def copy_evidence(figures: Path, out: Path, source: Path) -> None:
    """Put the committed figures where pages link to them (``out``) and where Sphinx looks (``source``)."""
    for target in (out / "figures", source / "figures"):
        if figures.is_dir():
            _copy_tree(figures, target, ignore=shutil.ignore_patterns(".*"))
        for path in sorted(target.rglob("*"), reverse=True):
            if not (figures / path.relative_to(target)).exists():
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _copy_tree(source: Path, target: Path, ignore: Callable[[str, list[str]], set[str]]) -> None:
    """Copy a folder into another, each file whole or not at all, and only where it differs."""

    def copy(one: str, other: str) -> None:
        if not (os.path.isfile(other) and filecmp.cmp(one, other, shallow=False)):
            with atomic_path(other) as work:
                shutil.copyfile(one, work)

    shutil.copytree(source, target, dirs_exist_ok=True, ignore=ignore, copy_function=copy)


def shown(estimate: Estimate) -> str:
    """A recorded number with its interval, as the tables show it."""
    if isinstance(estimate.value, int) or (estimate.low is None and float(estimate.value).is_integer()):
        return f"{estimate.value:,.0f}"
    return f"{estimate:,.1f}" if abs(estimate.value) >= 1000 else str(estimate)


def _digest(source: Path) -> str:
    """Of all that the pages follow from, the configuration and the packages that render them included."""
    digest = hashlib.sha256(sys.version.encode())
    for root in (source, HERE.parents[1]):  # the whole package: the reference is made from its docstrings
        for path in sorted(p for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
            digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    for package in ("sphinx", "myst-nb", "sphinx-book-theme", "sphinxcontrib-bibtex", "pydata-sphinx-theme"):
        digest.update(_version(package).encode())
    return digest.hexdigest()


def _version(package: str) -> str:
    from importlib import metadata

    return metadata.version(package)


def _empty(folder: Path, pattern: str, keep: Mapping[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(pattern):
        if path.stem not in keep:
            path.unlink()


def write_text(path: Path, text: str | None) -> None:
    """Write, unless that is what is there: Sphinx reads again what is newer than its page. None removes."""
    if text is None:
        path.unlink(missing_ok=True)
        return
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    with atomic_path(path) as work:
        work.write_text(text, encoding="utf-8")


def write_manifest(path: Path, manifest: Mapping[str, object]) -> None:
    """Write the run's manifest as JSON, for scripts and later comparisons."""
    write_text(path, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
