"""The committed notebooks carry the outputs of a run, and what these quote is still what is recorded.

Chapter 00 is run again, and compared with what is committed, in ``browser/test_lab.py``.
"""

import html
import re
from functools import cache

import committed
import pytest

from cxrlib.evaluation.results import project_root, read_record

NAMES = committed.notebooks()


@cache
def executed(name: str):
    notebook = committed.read(name)
    if not any(cell.outputs for cell in committed.code_cells(notebook)):
        pytest.skip(f"{name} has been changed and has no outputs yet: make notebooks")
    return notebook


def text_of(notebook) -> str:
    return "\n".join(committed.shown(o) for cell in committed.code_cells(notebook) for o in cell.outputs)


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_was_run_once_and_in_order(name):
    cells = committed.code_cells(executed(name))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


@pytest.mark.parametrize("name", NAMES)
def test_outputs_hold_no_error_no_warning_no_bar_and_nothing_of_the_machine(name):
    outputs = [o for cell in committed.code_cells(executed(name)) for o in cell.outputs]
    assert [o.evalue for o in outputs if o.output_type == "error"] == []
    assert [o.text for o in outputs if o.get("name") == "stderr"] == []
    assert not any("widget-view" in kind for o in outputs for kind in o.get("data", {}))
    found = re.findall(r"<Figure size|<Axes|it/s\]| at 0x[0-9a-f]+|/home/|/root/|/tmp/\w+", str(outputs))
    assert found == []
    assert not any("execution" in cell.metadata for cell in executed(name).cells)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_chapter_quotes_is_what_is_recorded(name):
    """To the last digit shown: a record made anew without the chapter's outputs fails here."""
    known = committed.recorded_estimates()
    quoted = [
        (number, estimate)
        for number, cell in enumerate(committed.code_cells(executed(name)))
        if committed.quotes(cell)
        for output in cell.outputs
        if "evidence(" not in cell.source or "<details" in str(output.get("data"))  # beside it, the run's own
        for estimate in committed.ESTIMATE.findall(committed.shown(output))
    ]
    assert [(number, estimate) for number, estimate in quoted if estimate not in known] == []


def test_quotations_are_found_where_there_are_many():
    quoting = [name for name in NAMES if "evidence(" in str(committed.code_cells(committed.read(name)))]
    assert len(quoting) >= 6


@pytest.mark.parametrize("name", NAMES)
def test_recorded_evidence_is_shown_as_it_is_committed(name):
    """Every number with its interval in a folded table stands in a record, and so does its command."""
    records = [read_record(path) for path in (project_root() / "figures").rglob("*.json")]
    commands = {record.command for record in records}
    shown = [
        output["data"]["text/html"]
        for cell in committed.code_cells(executed(name))
        for output in cell.outputs
        if "<details" in output.get("data", {}).get("text/html", "")
    ]
    for text in shown:
        assert set(re.findall(r"cxr study [^<]+", html.unescape(text))) <= commands
        found = set(committed.ESTIMATE.findall(html.unescape(text)))
        assert found <= committed.recorded_estimates(), found - committed.recorded_estimates()


@pytest.mark.parametrize("name", NAMES)
def test_no_cell_shows_its_figure_twice(name):
    """As its last line's value, and again because it was left open."""
    for cell in committed.code_cells(executed(name)):
        kinds = {o.output_type for o in cell.outputs if "image/png" in o.get("data", {})}
        assert kinds != {"execute_result", "display_data"}, cell.source
