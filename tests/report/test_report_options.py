"""Parameters, comparisons, grids and the single file of the report; its glossary and bibliography."""

import json
import re
from io import StringIO
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
import toy_notebooks
from bs4 import BeautifulSoup
from rich.console import Console
from typer.testing import CliRunner

from cxrlib.cli.main import app
from cxrlib.cli.report import axes_of
from cxrlib.errors import ConfigError
from cxrlib.evaluation.metrics import Estimate
from cxrlib.evaluation.results import project_root, record
from cxrlib.report import grid as report_grid
from cxrlib.report import report
from cxrlib.report.batch import Batch, find_notebooks
from cxrlib.report.grid import run_grid
from cxrlib.report.site import build
from cxrlib.report.site.comparison import compare, recorded_numbers
from cxrlib.report.site.single_file import one_file

KNOB = toy_notebooks.PARAMETERS + "\nknob = 1"


def two_notebooks(folder: Path) -> Path:
    """One that has a parameter ``knob`` and one that has not."""
    toy_notebooks.write(folder / "01_knob.ipynb", [("parameters", KNOB)])
    toy_notebooks.write(folder / "02_plain.ipynb", [("parameters", toy_notebooks.PARAMETERS)])
    return folder


# Parameters


def test_a_parameter_that_no_notebook_has_is_named_with_those_there_are(tmp_path):
    with pytest.raises(ConfigError, match=r"(?s)knbo.*data_dir, dataset, image_size, knob, preset, seed"):
        report.run_report(
            out=tmp_path / "out",
            notebooks_dir=two_notebooks(tmp_path / "notebooks"),
            parameters={"knbo": 2},
            console=Console(quiet=True),
        )
    assert not (tmp_path / "out").exists()


def test_the_reports_own_folder_cannot_be_set_and_a_seed_is_a_number(tmp_path):
    notebooks, _ = find_notebooks(two_notebooks(tmp_path))
    with pytest.raises(ConfigError, match="out_dir"):
        report.check_parameters({"out_dir": "elsewhere"}, notebooks)
    with pytest.raises(ConfigError, match="'lucky'"):
        report.check_parameters({"seed": "lucky"}, notebooks)


def test_a_set_parameter_decides_the_freshness_of_those_notebooks_alone_that_have_it(tmp_path):
    notebooks, _ = find_notebooks(two_notebooks(tmp_path))
    before, after = (Batch({"seed": 0}, tmp_path, extra={"knob": knob})._keys(notebooks) for knob in (1, 2))
    assert before["01_knob"] != after["01_knob"]
    assert before["02_plain"] == after["02_plain"]


def test_the_command_hands_its_parameters_over_and_says_how_to_give_them_again(monkeypatch):
    given = {}
    monkeypatch.setattr(report, "run_report", lambda **options: given.update(options) or 0)
    command = ["report", "--set", "knob=2", "--set", "name=a b", "--compare", "old", "--single-file"]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert given["parameters"] == {"knob": 2, "name": "a b"}
    assert (given["compare_with"], given["single_file"]) == (Path("old"), True)
    again = report.command_line({"dataset": "phantom", "data_dir": "/x/y", "seed": 1}, {"knob": 2}, 2)
    assert again == "cxr report --dataset phantom --seed 1 --data-dir '…/y' --set knob=2 --jobs 2"


# Comparisons


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (Estimate(0.7, 0.6, 0.8), Estimate(0.9, 0.81, 0.95), "moved"),
        (Estimate(0.7, 0.6, 0.8), Estimate(0.85, 0.8, 0.9), "within"),
        (Estimate(0.7, 0.6, 0.8), Estimate(0.81), "moved"),
        (Estimate(0.7), Estimate(0.75, 0.7, 0.8), "within"),
        (Estimate(3), Estimate(4), "different"),
        (Estimate(0.3), Estimate(0.1 + 0.2), "same"),
        (Estimate(0.7, 0.6, 0.8), Estimate(0.7, 0.6, 0.8), "same"),
        (None, Estimate(1), "appeared"),
        (Estimate(1), None, "vanished"),
    ],
)
def test_what_became_of_a_number(old, new, status):
    key = ("phantom", "toy", "auc")
    sides = ({key: side} if side else {} for side in (old, new))
    [change] = compare(*sides, "older").changes
    assert change.status == status


def test_numbers_are_read_from_a_report_a_project_or_its_figures_and_nothing_is_an_error(tmp_path):
    record(None, "r", {"auc": 0.5}, dataset="phantom", notebook="03_training", out_dir=tmp_path)
    key = ("phantom", "r", "auc")
    assert list(recorded_numbers(tmp_path)) == list(recorded_numbers(tmp_path / "figures")) == [key]
    (tmp_path / "manifest.json").write_text("{}")  # now a report, whose figures/ are no numbers of its own
    record(
        None, "own", {"auc": 0.5}, dataset="phantom", notebook="03_training", out_dir=tmp_path / "artifacts"
    )
    assert [name for _, name, _ in recorded_numbers(tmp_path)] == ["own"]
    with pytest.raises(ConfigError, match="no recorded numbers"):
        recorded_numbers(tmp_path / "nowhere")


def test_a_report_tells_shows_and_stores_what_moved_since_an_older_one(toy_report):
    out, _, said = toy_report
    assert re.search(r"moved beyond its interval +phantom/official_test/residual.test_auc +0\.700", said)
    stored = json.loads((out / "comparison.json").read_text())
    found = {number["number"]: number["status"] for number in stored["numbers"]}
    assert found == {"residual.test_auc": "moved", "seconds": "different", "gone": "vanished"}
    page = (out / "comparison.html").read_text()
    assert "0.700 (0.650–0.750)" in page and "0.900 (0.850–0.950)" in page
    assert str(out.parent) not in page


# Grids


def test_axes_are_words_with_values_that_look_like_what_they_are():
    assert axes_of(["seed=0,1 dataset=phantom,kermany"]) == {
        "seed": [0, 1],
        "dataset": ["phantom", "kermany"],
    }
    for wrong in ("seed", "seed=", "seed=1,,2", "seed=1,1", "se ed=1"):
        with pytest.raises(ConfigError):
            axes_of([wrong])
    with pytest.raises(ConfigError, match="repeats"):
        axes_of(["seed=0", "seed=1"])


def test_the_command_takes_axes_in_a_row_and_refuses_them_without_a_grid(monkeypatch):
    given = []
    monkeypatch.setattr(report_grid, "run_grid", lambda axes, **options: given.append(axes) or 0)
    command = ["report", "--grid", "seed=0,1", "dataset=phantom,kermany", "--grid", "knob=x"]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert given == [{"seed": [0, 1], "knob": ["x"], "dataset": ["phantom", "kermany"]}]
    assert CliRunner().invoke(app, ["report", "seed=0,1"]).exit_code == 2
    assert CliRunner().invoke(app, ["report", "--grid", "seed=0", "--compare", "x"]).exit_code == 2


def test_an_axis_that_is_no_parameter_is_an_error_before_anything_runs(tmp_path):
    folder = two_notebooks(tmp_path / "notebooks")
    with pytest.raises(ConfigError, match="sed"):
        run_grid({"sed": [0, 1]}, tmp_path / "out", notebooks_dir=folder, console=Console(quiet=True))
    with pytest.raises(ConfigError, match="100 points"):
        run_grid({"seed": range(100)}, tmp_path / "out", notebooks_dir=folder, console=Console(quiet=True))
    assert not (tmp_path / "out").exists()


MEASURES = """\
from cxrlib.evaluation import results
from cxrlib.evaluation.metrics import Estimate
numbers = {"auc": Estimate(0.8 + seed / 10, 0.7, 0.95), "knob": knob}
results.record(None, "r", numbers, dataset=dataset, notebook="01_knob", out_dir=out_dir, preset=preset)
if seed == 2:
    raise ValueError("two is too many")"""


def test_a_grid_survives_a_failing_run_resumes_and_compares_the_numbers(tmp_path):
    folder = tmp_path / "notebooks"
    toy_notebooks.write(folder / "01_knob.ipynb", [("parameters", KNOB), ("code", MEASURES)])

    def run(**axes):
        said = StringIO()
        options = {"preset": "smoke", "parameters": {"knob": 7}, "notebooks_dir": folder}
        return run_grid(
            axes, tmp_path / "out", console=Console(file=said, width=150), **options
        ), said.getvalue()

    status, _ = run(seed=[1, 2], data_dir=["nowhere"], dataset=["folder"])
    assert status == 1
    assert "There is no folder" in (tmp_path / "out" / "index.html").read_text()

    status, said = run(seed=[1, 2])
    assert status == 1 and "--grid seed=1,2" in (tmp_path / "out" / "index.html").read_text()
    points = json.loads((tmp_path / "out" / "grid.json").read_text())["points"]
    assert [point["status"] for point in points] == ["done", "failed"]
    table = BeautifulSoup((tmp_path / "out" / "numbers.html").read_text(), "html.parser").select_one("table")
    rows = [[cell.get_text() for cell in row(["th", "td"])] for row in table("tr")]
    assert rows[0] == ["Number", "seed=1", "seed=2✗ did not finish"]
    assert rows[1:] == [["auc", "0.900 (0.700–0.950)", "1.000 (0.700–0.950)"], ["knob", "7", "7"]]
    for link in table("a"):
        assert (tmp_path / "out" / unquote(link["href"])).is_file()

    status, said = run(seed=[1])
    assert status == 0 and "01_knob unchanged" in said


# One file


@pytest.fixture(scope="module")
def single(toy_report):
    return BeautifulSoup((toy_report[0] / build.SINGLE_FILE).read_text(), "html.parser")


def test_the_one_file_holds_every_chapter_and_refers_to_nothing_outside(single):
    assert {"index", "02_raises", "03_training", "05_dies", "numbers", "glossary", "bibliography"} <= {
        article["id"] for article in single("article")
    }
    ids = [element["id"] for element in single.select("[id]")]
    assert len(ids) == len(set(ids))
    for element in single.select("[src]"):
        assert element["src"].startswith("data:image/")
    for link in single.select("a[href]"):
        kind = link["href"].split(":")[0]
        assert kind in ("http", "https", "data") or link["href"][1:] in ids, link
    assert not single.select("link, script[src]")
    assert not re.findall(r"url\((?!\"?(?:data:|#))", "".join(style.get_text() for style in single("style")))


def test_a_section_that_several_chapters_have_keeps_its_own_anchor(single):
    heading = single.find(id="03_training--the-loss")
    assert heading is not None
    links = single.find(id="03_training").select('a[href="#03_training--the-loss"]')
    assert any(link.get_text() == "above" for link in links)


def test_the_one_file_goes_when_it_is_out_of_date(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    (out / ".build").mkdir(parents=True)
    build.write_reference(source, api=False)
    toctree = "# T\n\n```{toctree}\nglossary\nbibliography\n```\n"
    for text, single in ((toctree, True), (toctree, False), (toctree + "\nMore.\n", False)):
        build.write_text(source / "index.md", text)
        build.build(source, out, out / ".build", single_file=single)
        assert (out / build.SINGLE_FILE).is_file() == ("More" not in text)
    assert "AUC" in one_file(out)


# Glossary and bibliography


def cited() -> set[str]:
    """DOIs and arXiv numbers in the notebooks' text."""
    found = set()
    for path in (project_root() / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(path, 4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        found |= {unquote(doi) for doi in re.findall(r"\]\(https://doi\.org/([^)]+)\)", text)}
        found |= {f"10.48550/arXiv.{number}" for number in re.findall(r"arxiv\.org/abs/([\d.]+)\)", text)}
    return {doi.lower() for doi in found}


def test_the_bibliography_holds_what_the_chapters_cite_and_no_more():
    text = (build.HERE / "pages" / "references.bib").read_text()
    listed = set(re.findall(r"doi = \{(.+?)\},\n", text))
    listed |= {f"10.48550/arXiv.{number}" for number in re.findall(r"eprint = \{(.+?)\},", text)}
    assert {doi.lower() for doi in listed} == cited()


def test_every_reference_is_on_the_page_and_leads_somewhere(toy_report):
    page = BeautifulSoup((toy_report[0] / "bibliography.html").read_text(), "html.parser")
    entries = page.select("article .citation, article li")
    assert len(entries) == (build.HERE / "pages" / "references.bib").read_text().count("\n@")
    for entry in entries:
        assert entry.select('a[href^="https://"]'), entry.get_text()


def test_the_glossary_explains_each_word_once(toy_report):
    page = BeautifulSoup((toy_report[0] / "glossary.html").read_text(), "html.parser")
    terms = [term.find(string=True) for term in page.select("dl.glossary dt")]
    assert len(terms) == len(set(terms)) == len(page.select("dl.glossary dd"))
    assert {"AUC", "ECE", "worst group", "group DRO", "phantom"} <= set(terms)
