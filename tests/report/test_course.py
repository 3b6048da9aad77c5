"""The course lists its chapters and findings, and takes over the outputs of a report that fits it."""

import json

import nbformat
import pytest
import toy_notebooks

from cxrlib.errors import ConfigError, CxrError
from cxrlib.evaluation.metrics import Estimate
from cxrlib.evaluation.results import record
from cxrlib.report import course

CHAPTERS = {
    "01_first": [
        ("markdown", "# The first\n\n**Questions**\n\n- What is\n  seen?\n- What else?\n"),
        ("parameters", toy_notebooks.PARAMETERS),
        ("code", "1 + 1"),
    ],
    "02_second": [("markdown", "# The second"), ("code", "2 + 2"), ("code", "3 + 3")],
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of two chapters without outputs."""
    root = tmp_path / "project"
    for name, cells in CHAPTERS.items():
        toy_notebooks.write(root / "notebooks" / f"{name}.ipynb", cells)
    monkeypatch.setattr(course, "project_root", lambda: root)
    return root


@pytest.fixture
def report(tmp_path, project):
    """Of that project as it is: every code cell has one output, its number among all cells."""
    folder = tmp_path / "report"
    for name, cells in CHAPTERS.items():
        path = toy_notebooks.write(folder / "notebooks" / f"{name}.ipynb", cells)
        edit(path, run)
    say(folder)
    return folder


def edit(path, change):
    notebook = nbformat.read(path, as_version=4)
    change(notebook)
    nbformat.write(notebook, path)


def run(notebook):
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            cell.outputs = [nbformat.v4.new_output("stream", text=f"said by {number}")]
            cell.execution_count = 70 + number
    if "parameters" in notebook.cells[1].metadata.get("tags", ()):
        injected = nbformat.v4.new_code_cell("preset = 'smoke'", id="injected-parameters")
        injected.metadata["tags"] = ["injected-parameters"]
        notebook.cells.insert(2, injected)


def say(folder, dataset="phantom", **status):
    listed = [{"name": name, "status": status.get(name, "done")} for name in CHAPTERS]
    (folder / "manifest.json").write_text(json.dumps({"dataset": dataset, "notebooks": listed}))


def state(project):
    return {path.name: path.read_bytes() for path in (project / "notebooks").iterdir()}


def refused(report, project, *said):
    """keep_outputs says so and what to do, and changes nothing."""
    before = state(project)
    with pytest.raises(CxrError) as caught:
        course.keep_outputs(report)
    assert all(words in str(caught.value) for words in said), str(caught.value)
    assert "make report" in caught.value.remedy
    assert state(project) == before


def test_the_outputs_of_a_report_are_taken_over_and_the_sources_stay(project, report):
    written = course.keep_outputs(report)
    assert [path.name for path in written] == ["01_first.ipynb", "02_second.ipynb"]
    for path, texts in zip(written, (["said by 1", "said by 2"], ["said by 1", "said by 2"]), strict=True):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert [cell.outputs[0].text for cell in code] == texts
        assert [cell.execution_count for cell in code] == [1, 2]
        assert [cell.source for cell in notebook.cells] == [text for _, text in CHAPTERS[path.stem]]


def test_taking_over_outputs_twice_changes_nothing_more(project, report):
    course.keep_outputs(str(report))
    once = state(project)
    course.keep_outputs(report)
    assert state(project) == once


def test_a_folder_that_is_no_report_is_refused(project, tmp_path):
    refused(tmp_path / "nowhere", project, "no finished report")


def test_a_report_on_other_data_is_refused(project, report):
    say(report, dataset="kermany")
    refused(report, project, "kermany", "embedded cohort")


def test_a_report_with_a_notebook_that_failed_is_refused_and_the_notebook_named(project, report):
    say(report, **{"02_second": "failed"})
    refused(report, project, "1 notebooks unfinished", "- 02_second")


def test_a_report_without_one_of_the_notebooks_is_refused(project, report):
    (report / "notebooks" / "02_second.ipynb").unlink()
    refused(report, project, "made without 02_second.ipynb")


def _other_source(notebook):
    notebook.cells[2].source = "3 + 4"


def _new_cell(notebook):
    notebook.cells.append(nbformat.v4.new_code_cell("4 + 4"))


def _cell_gone(notebook):
    del notebook.cells[2]


def _turned_round(notebook):
    notebook.cells[1:] = notebook.cells[:0:-1]


@pytest.mark.parametrize(
    ("change", "number"), [(_other_source, 2), (_new_cell, 3), (_cell_gone, 2), (_turned_round, 1)]
)
def test_a_notebook_changed_since_the_report_is_refused_and_the_cell_named(project, report, change, number):
    edit(project / "notebooks" / "02_second.ipynb", change)
    refused(report, project, f"Code cell {number} of 02_second.ipynb has changed")


def test_words_changed_since_the_report_do_not_matter(project, report):
    def reword(notebook):
        notebook.cells[0].source = "# Another title"

    edit(project / "notebooks" / "02_second.ipynb", reword)
    course.keep_outputs(report)
    assert course.chapters()["title"].tolist() == ["The first", "Another title"]


def test_an_installed_package_has_no_notebooks_to_fill(monkeypatch, tmp_path):
    monkeypatch.setattr(course, "project_root", lambda: None)
    with pytest.raises(CxrError, match="Run from a checkout"):
        course.keep_outputs(tmp_path)


def test_chapters_have_their_title_and_their_first_question(project):
    assert course.chapters().to_dict("records") == [
        {"chapter": "01_first", "title": "The first", "first question": "What is seen?"},
        {"chapter": "02_second", "title": "The second", "first question": ""},
    ]


def test_every_chapter_of_the_project_has_a_title_and_a_question():
    table = course.chapters()
    assert len(table) >= 9 and (table[["title", "first question"]] != "").all(axis=None)


def test_a_project_without_chapters_says_where_to_run(project):
    for path in (project / "notebooks").iterdir():
        path.unlink()
    with pytest.raises(ConfigError, match="Run from a checkout"):
        course.chapters()


def test_without_a_checkout_the_tables_are_empty(monkeypatch):
    monkeypatch.setattr(course, "project_root", lambda: None)
    assert course.findings().empty
    assert course.chapters().columns.tolist() == ["chapter", "title", "first question"]
    assert course.chapters().empty


def test_findings_are_a_row_a_question_and_a_column_a_dataset(project):
    assert course.findings().empty  # nothing is recorded yet
    for dataset, value in (("phantom", 0.9), ("kermany", 0.8)):
        numbers = {"residual.test_auc": Estimate(value, value - 0.1, value + 0.05)}
        numbers |= {"lenet.test_auc": Estimate(0.7)} if dataset == "phantom" else {}
        record(None, "official_test", numbers, dataset=dataset, out_dir=project)
    table = course.findings()
    assert table.columns.tolist() == ["what the classifier sees", "measure", "kermany", "phantom"]
    whole = table[table["phantom"].str.startswith("0.900")]
    assert whole["kermany"].tolist() == ["0.800 (0.700–0.850)"] * len(whole) and len(whole)
    assert "–" not in table["phantom"].tolist()


def test_what_is_handed_out_holds_no_solution_and_no_output(project, report, tmp_path):
    course.keep_outputs(report)  # so that there are outputs to lose
    solution = nbformat.v4.new_code_cell("answer = 42")
    solution.metadata["tags"] = ["solution", "hide-cell"]
    exercise = nbformat.v4.new_code_cell("answer = ...")
    exercise.metadata["tags"] = ["exercise"]
    edit(
        project / "notebooks" / "01_first.ipynb", lambda notebook: notebook.cells.extend([exercise, solution])
    )
    before = state(project)
    (tmp_path / "out").mkdir()
    gone = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    for name in ("77_gone.ipynb", "mine.ipynb"):
        nbformat.write(gone, tmp_path / "out" / name)
    written = course.hand_out(tmp_path / "out")
    assert [path.name for path in written] == ["01_first.ipynb", "02_second.ipynb"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "01_first.ipynb", "02_second.ipynb", "mine.ipynb",
    ]  # fmt: skip
    first, second = (nbformat.read(path, as_version=4) for path in written)
    assert [cell.source for cell in first.cells] == [
        *(text for _, text in CHAPTERS["01_first"]),
        "answer = ...",
    ]
    code = [cell for notebook in (first, second) for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert state(project) == before


def test_answers_that_somebody_wrote_are_not_overwritten(project, tmp_path):
    first = course.hand_out(tmp_path / "out")[0]
    edit(first, lambda notebook: notebook.cells[-1].update(execution_count=1))
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(CxrError, match="Somebody has worked") as caught:
        course.hand_out(tmp_path / "out")
    assert "01_first.ipynb" in str(caught.value)
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
