"""Executed notebooks made fit to read: no machine paths, progress bars or times; failures marked."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import nbformat

from cxrlib.report.batch import Outcome
from cxrlib.report.explorer import SLOT
from cxrlib.report.notebook_worker import PAPERMILL_ERROR
from cxrlib.report.site.glossary import linked
from cxrlib.report.site.safe import safe_html, safe_markdown

# nbformat's functions have no types of their own.
read_notebook: Callable[[str | Path], nbformat.NotebookNode] = partial(nbformat.read, as_version=4)
write_notebook: Callable[[nbformat.NotebookNode, str | Path], None] = nbformat.write
_markdown_cell: Callable[..., nbformat.NotebookNode] = nbformat.v4.new_markdown_cell
_output: Callable[..., nbformat.NotebookNode] = nbformat.v4.new_output

WAITING = "This chapter is being made. Open the page again in a few minutes."
_PROGRESS = re.compile(r"\d+%\|.*\||━━━|^\d+\w* \[\d\d:\d\d")
_WIDGETS = ("application/vnd.jupyter.widget-view+json", "application/vnd.jupyter.widget-state+json")
_UNREAD = (*_WIDGETS, "application/javascript")
_ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}")
_SCRATCH = re.compile(r"\bcxrlib-\w{8}\b")
_KERNEL_FILE = re.compile(r"(?:[A-Za-z]:)?[^\s\"'<>|]*ipykernel_\d+[\\/]\d+\.py")
_REPR = re.compile(r"^(\[?<(Axes|Figure|AxesSubplot|matplotlib\.)[^\n]*|Text\([^\n]*\))$", re.DOTALL)
_TITLE = re.compile(r"^# +(.+?)\s*#*$", re.MULTILINE)


def clean(notebook: nbformat.NotebookNode, names: Mapping[str, str]) -> nbformat.NotebookNode:
    """The executed notebook without what belongs to this machine or this minute.

    - ``notebook``: as papermill left it; changed in place.
    - ``names``: folder to what stands for it in the text, such as ``{"/home/me/project": ""}``. Longest first
      wins.
    - Returns: The same notebook: no papermill cells and times, no widgets, progress bars, memory addresses or
      reprs of figures, no ``out_dir``.
    """
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    notebook.cells = [c for c in notebook.cells if PAPERMILL_ERROR not in c.metadata.get("tags", ())]
    for cell in notebook.cells:
        for key in ("papermill", "execution", "ExecuteTime"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags", True):  # papermill gives every cell an empty list
            del cell.metadata["tags"]
        if cell.cell_type != "code":
            continue
        if "injected-parameters" in cell.metadata.get("tags", ()):
            cell["id"] = "injected-parameters"
            kept = [line for line in cell.source.splitlines() if not line.startswith("out_dir =")]
            cell.source = _neutral(
                "\n".join(kept).replace("# Parameters", "# The parameters of this run"), names
            )
        cell.outputs = [clean for output in cell.outputs if (clean := _clean_output(output, names))]
    return notebook


def decorate(notebook: nbformat.NotebookNode, outcome: Outcome, rerun: str) -> nbformat.NotebookNode:
    """A cleaned notebook with a text for every figure, its terms linked, and any failure marked and open.

    ``rerun`` is the command that runs this notebook alone.
    """
    heading = title(notebook, outcome.name)
    if not any(c.cell_type == "markdown" and _TITLE.search(c.source) for c in notebook.cells):
        notebook.cells.insert(0, _markdown_cell(f"# {heading}", id="title"))
    if outcome.status == "waiting":
        titles = (c for c in notebook.cells if c.cell_type == "markdown" and _TITLE.search(c.source))
        notebook.cells = [next(titles)]
        notebook.cells.append(_markdown_cell(f"```{{note}}\n{WAITING}\n```", id="waiting"))
    broken = _broken_cell(notebook, outcome)
    explained: set[str] = set()
    slots: list[nbformat.NotebookNode] = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            found = _TITLE.findall(cell.source)
            heading = found[-1] if found else heading
            sections = re.findall(r"^##+ +(.+)$", cell.source, re.MULTILINE)
            heading = sections[-1] if sections else heading
            cell.source = re.sub(r"\]\(\.\./figures/", "](figures/", cell.source)
            cell.source = re.sub(r'(src|href)="\.\./figures/', r'\1="figures/', cell.source)
            cell.source = linked(cell.source, explained)
            continue
        if cell.cell_type != "code":
            continue
        if "explorer" in cell.metadata.get("tags", ()) and cell is not broken:
            slots.append(cell)
            cell.outputs = []
        if broken is not None and cell is broken:
            cell.metadata["tags"] = [tag for tag in cell.metadata.get("tags", ()) if "hide" not in tag]
        if any(
            "image/png" in o.get("data", {}) or "image/svg+xml" in o.get("data", {}) for o in cell.outputs
        ):
            image = cell.metadata.setdefault("mystnb", {}).setdefault("image", {})
            said = [
                alt for o in cell.outputs if (alt := o.get("metadata", {}).get("image/png", {}).get("alt"))
            ]
            image.setdefault("alt", said[0] if said else f"Figure in the section “{heading}”")
    for cell in slots:  # where the widget was
        place = next(i for i, one in enumerate(notebook.cells) if one is cell)
        slot = _markdown_cell(f"```{{raw}} html\n{SLOT}\n```", id=f"{cell['id']}-explorer")
        notebook.cells.insert(place + 1, slot)
    if outcome.status in ("failed", "died"):
        _mark(notebook, outcome, broken, rerun)
    return notebook


def title(notebook: nbformat.NotebookNode, name: str) -> str:
    """The notebook's first heading, or its name."""
    for cell in notebook.cells:
        found = _TITLE.search(cell.source) if cell.cell_type == "markdown" else None
        if found:
            return re.sub(r"[`*]", "", found[1])
    return name


def _broken_cell(notebook: nbformat.NotebookNode, outcome: Outcome) -> nbformat.NotebookNode | None:
    position = (outcome.error or {}).get("cell")
    inside = isinstance(position, int) and position < len(notebook.cells)
    return notebook.cells[position] if outcome.status != "done" and inside else None


def _mark(
    notebook: nbformat.NotebookNode, outcome: Outcome, broken: nbformat.NotebookNode | None, rerun: str
) -> None:
    """Say at the top that the notebook did not finish, and show where it ended."""
    error = outcome.error or {}
    message = str(error.get("message", "")).strip() or "no message"
    if broken is not None:
        if not any(output.output_type == "error" for output in broken.outputs):
            traceback = [f"{error.get('name')}: {message}"]
            broken.outputs.append(
                _output("error", ename=str(error.get("name")), evalue=message, traceback=traceback)
            )
        anchor = _markdown_cell('<a id="stopped-here"></a>**It stopped here:**', id="stopped-here")
        position = next(i for i, cell in enumerate(notebook.cells) if cell is broken)
        notebook.cells.insert(position, anchor)
    what = "stopped with an error" if outcome.status == "failed" else "died"
    where = ' at <a href="#stopped-here">this cell</a>' if broken is not None else ""
    short = html.escape("\n".join(message.splitlines()[:6]))
    box = (
        f"<p><strong>This notebook {what}{where}</strong>; what follows that cell was not run.</p>\n"
        f"<pre>{html.escape(str(error.get('name')))}: {short}</pre>\n"
        f"<p>To run it alone: <code>{html.escape(rerun)}</code></p>"
    )
    box = f'```{{raw}} html\n<div class="stopped" role="alert">{box}</div>\n```'
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and _TITLE.search(cell.source):
            cell.source = _TITLE.sub(lambda found: f"{found[0]}\n\n{box}\n", cell.source, count=1)
            return


def _clean_output(output: nbformat.NotebookNode, names: Mapping[str, str]) -> nbformat.NotebookNode | None:
    """The output without noise, or None where nothing else is in it."""
    output.get("metadata", {}).pop("execution", None)
    if output.output_type == "stream":
        text = "".join(re.sub(r"^.*\r(?!\n)", "", line) for line in output.text.splitlines(keepends=True))
        kept = [line for line in text.splitlines(keepends=True) if not _PROGRESS.search(line)]
        if output.name == "stderr":
            # That two chapters needed one network at the same time says nothing of either.
            waited = "Another process is building"
            kept = [line for line in kept if line.strip() and not line.startswith(waited)]
        output.text = _neutral("".join(kept), names)
        return output if output.text.strip() else None
    if output.output_type == "error":
        output.traceback = [_neutral(line, names) for line in output.traceback]
        output.evalue = _neutral(output.evalue, names)
        return output
    had_widget = any(kind in output.data for kind in _UNREAD)
    for kind in _UNREAD:
        output.data.pop(kind, None)
    plain = output.data.get("text/plain", "")
    only_plain = set(output.data) <= {"text/plain"}
    if only_plain and (had_widget or not plain or _REPR.match(plain.strip()) or _PROGRESS.search(plain)):
        return None
    if any(kind.startswith("image/") for kind in output.data) and _REPR.match(plain.strip()):
        del output.data["text/plain"]
    for kind, content in output.data.items():
        if kind.startswith("text/") and isinstance(content, str):
            output.data[kind] = _neutral(content, names)
    for kind, safe in (("text/html", safe_html), ("text/markdown", safe_markdown)):
        if kind in output.data:
            output.data[kind] = safe(output.data[kind])
    return output


def _neutral(text: str, names: Mapping[str, str]) -> str:
    """The text with this machine's folders named as a reader on another machine would."""
    text = _KERNEL_FILE.sub("notebook-cell", text)
    home = str(Path.home())
    for folder in sorted(names, key=len, reverse=True):
        spellings = {folder, folder.replace(home, "~", 1)} if folder.startswith(home + "/") else {folder}
        for spelling in spellings:
            stand_in = names[folder]
            if not stand_in:  # what is inside the folder then reads as a relative path
                text = text.replace(spelling + "/", "")
            words = (stand_in or ".").replace("\\", r"\\")  # a template, in which a backslash escapes
            text = re.sub(re.escape(spelling) + r"(?![\w.-])", words, text)
    return _SCRATCH.sub("cxrlib", _ADDRESS.sub("", text))
