import importlib
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path

import nbformat
import pytest
import toy_notebooks
from bs4 import BeautifulSoup
from rich.console import Console

from cxrlib.errors import ConfigError
from cxrlib.evaluation.metrics import Estimate
from cxrlib.evaluation.results import Record, project_root
from cxrlib.report.batch import Batch, Notebook, Outcome, _weights, find_notebooks, run_key
from cxrlib.report.explorer import SLOT
from cxrlib.report.growing import Growing
from cxrlib.report.notebook_worker import FORKS
from cxrlib.report.report import run_report
from cxrlib.report.site import build, chapters, first_page
from cxrlib.report.site.build import WORDS
from cxrlib.report.site.docs import write_docs
from cxrlib.report.site.math_svg import lines, svg
from cxrlib.report.site.scoreboard import Evidence, collect, scoreboard
from cxrlib.report.site.slides import slides

PAGES = project_root() / "cxrlib" / "report" / "site" / "pages"


@pytest.fixture(scope="module")
def toy(toy_report):
    return toy_report


def page(toy, name: str) -> str:
    return (toy[0] / f"{name}.html").read_text(encoding="utf-8")


# The report as a whole


def test_a_failing_notebook_makes_the_exit_status_1_and_stops_no_other(toy):
    out, status, said = toy
    assert status == 1
    assert [n["status"] for n in json.loads((out / "manifest.json").read_text())["notebooks"]] == [
        "failed",
        "done",
        "died",
    ]
    assert "--only 02_raises" in said


def test_a_failing_notebook_is_rendered_with_its_traceback_and_marked_on_the_index(toy):
    chapter, index = page(toy, "02_raises"), page(toy, "index")
    assert "before the error" in chapter
    assert "Traceback" in chapter
    assert "Column &lt;label&gt; is missing." in chapter
    assert "What to do: Name it." in chapter
    assert 'href="#stopped-here"' in chapter and 'id="stopped-here"' in chapter
    assert WORDS["failed"] in index
    assert "✗ A chapter that raises" in page(toy, "03_training")  # in the contents of every page
    assert "2 of 3 notebooks did not finish" in index


def test_a_notebook_whose_kernel_dies_keeps_its_outputs_and_says_so(toy):
    chapter = page(toy, "05_dies")
    assert "last words" in chapter
    assert "DeadKernelError" in chapter
    assert "--only 05_dies" in chapter
    assert WORDS["died"] in page(toy, "index")


def test_the_scoreboard_shows_a_recorded_number_with_its_interval_and_its_chapter(toy):
    assert '<a href="03_training.html">0.900</a>' in page(toy, "index")
    assert "0.850–0.950" in page(toy, "index")
    assert (toy[0] / "artifacts/figures/phantom/03_training/official_test.json").is_file()
    assert "residual.test_auc" in page(toy, "numbers")


def test_the_manifest_says_what_was_run(toy):
    manifest = json.loads((toy[0] / "manifest.json").read_text())
    assert (manifest["dataset"], manifest["preset"], manifest["seed"]) == ("phantom", "smoke", 0)
    assert {"python", "numpy", "torch"} <= set(manifest["versions"])
    assert manifest["hardware"]
    assert all(notebook["seconds"] > 0 for notebook in manifest["notebooks"])
    index = page(toy, "index")
    assert manifest["hardware"] in index and manifest["versions"]["numpy"] in index


def test_no_page_and_no_executed_notebook_names_this_machines_folders(toy):
    out = toy[0]
    folders = {str(out.parent), str(Path.home()), str(project_root()), sys.prefix}
    shown = [
        *out.glob("*.html"),
        *out.glob("notebooks/*.ipynb"),
        *out.glob("_sources/*"),
        out / "manifest.json",
    ]
    for path in shown:
        text = path.read_text(encoding="utf-8")
        assert not [folder for folder in folders if folder + "/" in text or folder + '"' in text], path.name
        assert " at 0x" not in text
        assert "start_time" not in text


def test_progress_bars_and_reprs_of_figures_vanish(toy):
    chapter = page(toy, "03_training")
    assert "Computed: the seed is <strong>0</strong>" in chapter
    for noise in ("bars vanish:", "%|", "it/s", "&lt;Axes", "&lt;Figure", "widget-view"):
        assert noise not in chapter, noise


def test_the_pages_ask_nothing_of_the_network(toy):
    for path in toy[0].glob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?:https?:)?//[^"]+', text), (
            path.name
        )


@pytest.fixture(scope="module")
def reference(committed_report):
    """The pages that are the same in every report of the project's own notebooks."""
    return (committed_report,)


def test_each_name_that_a_room_hands_on_stands_in_the_reference_with_what_it_does(reference):
    rooms = re.findall(r"{room} (\S+)", (PAGES / "reference.md").read_text(encoding="utf-8"))
    assert set(rooms) >= {f"cxrlib.{path.parent.name}" for path in PAGES.parents[2].glob("*/__init__.py")} - {
        "cxrlib.cli"
    }
    soup = BeautifulSoup(page(reference, "reference"), "html.parser")
    entries = {term["id"]: term.find_next_sibling("dd") for term in soup.select("dt.sig[id]")}
    assert entries["cxrlib.cohort.Cohort"].get_text(strip=True)
    for room in map(importlib.import_module, rooms):
        for name in room.__all__:
            value = getattr(room, name)
            module = value.__name__ if inspect.ismodule(value) else None
            owned = [n for n, v in vars(value).items() if is_public(n, v, module)] if module else [name]
            for one in owned:
                found = [text for at, text in entries.items() if at.startswith(room.__name__)
                         and at.endswith(f".{one}") and at.startswith(module or "")]  # fmt: skip
                assert found and found[0].get_text(strip=True), f"{room.__name__}.{name}: {one}"


def is_public(name: str, value: object, module: str) -> bool:
    ours = (inspect.isfunction(value) or inspect.isclass(value)) and value.__module__ == module
    return ours and not name.startswith("_") and bool(value.__doc__)


def test_the_reference_is_in_the_contents_and_in_the_search(reference):
    assert 'href="reference.html"' in page(reference, "index")
    words = (reference[0] / "searchindex.js").read_text(encoding="utf-8")
    assert '"reference"' in words and "nonfiniterecovery" in words.lower()


WATCHES = """\
import time
from pathlib import Path
site, deadline = Path(out_dir).parent, time.monotonic() + 300
pages = [site / "index.html", site / "01_watches.html"]
while not all(page.exists() for page in pages) and time.monotonic() < deadline:
    time.sleep(0.1)
for page in pages:
    print("a chapter", "is being made" if "is being made" in page.read_text() else "is there")
print("finished:", (site / ".build" / "site.sha256").exists())"""


def test_the_first_page_is_there_before_a_chapter_has_ended(tmp_path):
    cells = [("markdown", "# It watches"), ("parameters", toy_notebooks.PARAMETERS), ("code", WATCHES)]
    toy_notebooks.write(tmp_path / "notebooks" / "01_watches.ipynb", cells)
    said = StringIO()
    console = Console(file=said, width=200)
    options = {"preset": "smoke", "notebooks_dir": tmp_path / "notebooks", "console": console}
    assert run_report(out=tmp_path / "report", **options) == 0
    seen = (tmp_path / "report" / "01_watches.html").read_text()
    assert seen.count("a chapter is being made") == 2 and "a chapter is there" not in seen.split("Path(")[-1]
    assert "finished: False" in seen and chapters.WAITING not in seen
    assert "is being made" not in (tmp_path / "report" / "index.html").read_text()
    assert (tmp_path / "report" / ".build" / build.MARKER).is_file()
    assert "the first page is there" in said.getvalue()


def test_what_grows_is_drawn_at_once_from_the_latest_news_and_no_error_of_its_ends_the_work():
    drawn, at_work = [], threading.Event()

    def draw(news):
        drawn.append(news)
        at_work.set()
        raise OSError("the disk is full")

    with Growing(draw, seconds=0.2) as growing:
        growing.tell("first")
        assert at_work.wait(10)
        growing.tell("old")
        growing.tell("new")
        while len(drawn) < 2:
            time.sleep(0.01)
    assert drawn == ["first", "new"]


def test_a_report_is_not_written_over_something_else(tmp_path):
    (tmp_path / "thesis.tex").write_text("five years of work")
    with pytest.raises(ConfigError, match="not a report"):
        run_report(out=tmp_path, notebooks_dir=toy_notebooks.write_all(tmp_path / "notebooks"))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"preset": "coarse"}, "coarse"),
        ({"jobs": 0}, "0 notebooks"),
        ({"only": ["9"]}, "9"),
        ({"data_dir": "nowhere"}, "nowhere"),
    ],
)
def test_a_wrong_option_is_named_before_anything_runs(tmp_path, wrong, named):
    folder = toy_notebooks.write_all(tmp_path / "notebooks")
    with pytest.raises(ConfigError, match=named):
        run_report(out=tmp_path / "report", notebooks_dir=folder, console=Console(quiet=True), **wrong)


# Running notebooks


def batch_in(tmp_path: Path, **options) -> Batch:
    (tmp_path / "artifacts").mkdir(exist_ok=True)
    parameters = {"preset": "smoke", "seed": 0, "out_dir": str(tmp_path / "artifacts")}
    return Batch(parameters, tmp_path / "runs", **options)


def run_in(tmp_path: Path, only=None, **options):
    return batch_in(tmp_path, **options).run(*find_notebooks(tmp_path / "notebooks", only))


COUNTS = """\
from pathlib import Path
with (Path(out_dir) / "runs.txt").open("a") as file:
    print({!r}, file=file)"""


WRITES_ITS_NUMBER = """\
import os, time
from pathlib import Path
(Path(out_dir) / "kernel").write_text(f"{os.getpid()}.")"""


def started_kernel(tmp_path: Path) -> int:
    """Wait for a kernel that writes its process number, and give the number."""
    file = tmp_path / "artifacts" / "kernel"
    deadline = time.monotonic() + 180
    while not (file.exists() and file.read_text().endswith(".")):
        assert time.monotonic() < deadline, "the kernel has not started"
        time.sleep(0.1)
    return int(file.read_text()[:-1])


def ends(process: int) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.2)
    return False


def runs(tmp_path: Path) -> list[str]:
    return (tmp_path / "artifacts" / "runs.txt").read_text().split()


def test_a_notebook_runs_after_those_it_needs_and_only_when_something_changed(tmp_path):
    folder = tmp_path / "notebooks"
    first = [("parameters", toy_notebooks.PARAMETERS), ("code", COUNTS.format("needs"))]
    second = [("parameters", toy_notebooks.PARAMETERS), ("code", COUNTS.format("needed"))]
    toy_notebooks.write(folder / "01_first.ipynb", first, needs=("07_second",))
    toy_notebooks.write(folder / "07_second.ipynb", second)
    outcomes = run_in(tmp_path, jobs=2)
    assert [outcome.status for outcome in outcomes.values()] == ["done", "done"]
    assert runs(tmp_path) == ["needed", "needs"]

    assert all(outcome.reused for outcome in run_in(tmp_path).values())
    assert runs(tmp_path) == ["needed", "needs"]

    toy_notebooks.write(folder / "01_first.ipynb", [*first, ("code", "1 + 1")], needs=("07_second",))
    again = run_in(tmp_path)
    assert (again["01_first"].reused, again["07_second"].reused) == (False, True)


def test_the_longest_chain_of_notebooks_begins_first():
    about = {"01_a": ((), 10), "02_b": (("01_a",), 50), "03_c": ((), 55), "04_d": ((), 5)}
    notebooks = [Notebook(Path(f"{name}.ipynb"), *facts[:1], (), facts[1]) for name, facts in about.items()]
    assert _weights(notebooks) == {"01_a": 60, "02_b": 50, "03_c": 55, "04_d": 5}
    assert _weights(notebooks[1:])["02_b"] == 50  # the first is there already


@pytest.mark.skipif(not FORKS, reason="kernels are not forked here")
def test_a_kernel_has_the_slow_imports_behind_it_and_its_own_environment(tmp_path):
    look = "import multiprocessing, os, sys\nfrom pathlib import Path\n"
    look += "own = [os.environ['TMPDIR'] == os.getcwd(), os.getpid() == os.getsid(0)]\n"
    look += "facts = ['torch' in sys.modules, *own]\n"
    look += "(Path(out_dir) / 'facts').write_text(f'{facts} {multiprocessing.current_process().name}')"
    cells = [("parameters", toy_notebooks.PARAMETERS), ("code", look)]
    toy_notebooks.write(tmp_path / "notebooks" / "01_looks.ipynb", cells)
    assert run_in(tmp_path)["01_looks"].status == "done"
    assert (tmp_path / "artifacts" / "facts").read_text() == "[True, True, True] MainProcess"


def test_a_records_paths_remove_nothing_but_the_notebooks_own_figures(tmp_path):
    batch, precious = batch_in(tmp_path), tmp_path / "precious.json"
    own = tmp_path / "artifacts" / "figures" / "phantom" / "01_first" / "one.json"
    own.parent.mkdir(parents=True)
    for path in (precious, own, own.with_suffix(".png")):
        path.write_text("{}")
    batch.state_dir.mkdir(exist_ok=True)
    (batch.state_dir / "01_first.json").write_text(json.dumps({"files": ["../precious.json", str(precious)]}))
    batch._forget("01_first")
    assert precious.exists() and not list(own.parent.iterdir())
    assert not list(batch.state_dir.iterdir())


def test_a_process_that_is_killed_is_marked_with_the_signal(tmp_path):
    killer = [
        (
            "code",
            "import os\nimport signal\nos.kill(os.getppid(), signal.SIGKILL)\nimport time\ntime.sleep(9)",
        )
    ]
    toy_notebooks.write(tmp_path / "notebooks" / "01_kills.ipynb", killer)
    outcome = run_in(tmp_path)["01_kills"]
    assert outcome.status == "died"
    assert "signal 9" in outcome.error["message"]
    assert outcome.error["cell"] is not None


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_or_killed_batch_goes_on_from_what_was_finished(tmp_path, how):
    folder = tmp_path / "notebooks"
    quick = [("parameters", toy_notebooks.PARAMETERS), ("code", COUNTS.format("quick"))]
    slow = [("parameters", toy_notebooks.PARAMETERS), ("code", WRITES_ITS_NUMBER + "\ntime.sleep(600)")]
    toy_notebooks.write(folder / "01_quick.ipynb", quick)
    toy_notebooks.write(folder / "02_slow.ipynb", slow)
    # Where the tests run in the background, SIGINT is ignored, and Python then leaves it so.
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "sys.path[:0] = sys.argv[2:]; from pathlib import Path; import test_report; "
        "from cxrlib.report import notebook_worker; notebook_worker.WARM = (); "  # what takes longest
        "test_report.run_in(Path(sys.argv[1]))"
    )
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            program,
            str(tmp_path),
            str(Path(__file__).parent),
            str(project_root() / "tests"),
        ],
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(project_root())},
    )
    kernel = started_kernel(tmp_path)
    process.send_signal(how)
    _, said = process.communicate(timeout=240)
    assert process.returncode != 0 and (how != signal.SIGINT or b"KeyboardInterrupt" in said)
    assert ends(kernel)
    outcome = run_in(tmp_path, only=["01"])["01_quick"]
    assert outcome.reused
    assert runs(tmp_path) == ["quick"]


def test_a_kernel_killed_from_outside_is_marked_and_run_again_alone(tmp_path):
    folder = tmp_path / "notebooks"
    first = [("parameters", toy_notebooks.PARAMETERS), ("code", COUNTS.format("quick"))]
    waits = WRITES_ITS_NUMBER + '\nif not (Path(out_dir) / "go").exists():\n    time.sleep(600)'
    second = [("parameters", toy_notebooks.PARAMETERS), ("code", waits), ("code", COUNTS.format("killed"))]
    toy_notebooks.write(folder / "01_quick.ipynb", first)
    toy_notebooks.write(folder / "02_killed.ipynb", second)
    with ThreadPoolExecutor() as pool:
        batch = pool.submit(run_in, tmp_path, jobs=2)
        os.kill(started_kernel(tmp_path), signal.SIGKILL)
        outcomes = batch.result(timeout=240)
    assert [outcome.status for outcome in outcomes.values()] == ["done", "died"]
    assert "kernel died" in outcomes["02_killed"].error["message"]
    assert outcomes["02_killed"].error["cell"] == 2  # counted with the injected parameters

    (tmp_path / "artifacts" / "go").touch()
    again = run_in(tmp_path, only=["02"])
    assert [(outcome.status, outcome.reused) for outcome in again.values()] == [
        ("done", True),
        ("done", False),
    ]
    assert runs(tmp_path) == ["quick", "killed"]


def test_memory_that_cannot_be_had_fails_its_notebook_alone(tmp_path):
    folder = tmp_path / "notebooks"
    toy_notebooks.write(folder / "01_greedy.ipynb", [("code", "bytearray(1 << 60)")])
    toy_notebooks.write(folder / "02_modest.ipynb", [("code", "bytearray(1)")])
    outcomes = run_in(tmp_path, jobs=2)
    assert [outcome.status for outcome in outcomes.values()] == ["failed", "done"]
    assert outcomes["01_greedy"].error["name"] == "MemoryError"


def test_papermill_alone_needs_nothing_but_the_notebook_from_any_folder(tmp_path):
    cells = [("parameters", toy_notebooks.PARAMETERS), ("code", "import cxrlib\nprint(dataset, seed)")]
    notebook = toy_notebooks.write(tmp_path / "notebooks" / "01_any.ipynb", cells)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(notebook),
        "out.ipynb",
        "-p",
        "dataset",
        "kermany",
        "-p",
        "seed",
        "3",
    ]
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "kermany 3" in (elsewhere / "out.ipynb").read_text()
    assert [path.name for path in elsewhere.iterdir()] == ["out.ipynb"]


def test_numbers_with_gaps_are_found_in_order_and_chosen_by_their_beginning(tmp_path):
    notebooks, selected = find_notebooks(toy_notebooks.write_all(tmp_path), ["02", "05_dies.ipynb"])
    assert [notebook.name for notebook in notebooks] == ["02_raises", "03_training", "05_dies"]
    assert selected == {"02_raises", "05_dies"}


def test_needs_that_go_round_in_a_circle_or_nowhere_are_errors(tmp_path):
    toy_notebooks.write(tmp_path / "01_a.ipynb", [], needs=("02_b",))
    with pytest.raises(ConfigError, match="02_b"):
        find_notebooks(tmp_path)
    toy_notebooks.write(tmp_path / "02_b.ipynb", [], needs=("01_a",))
    with pytest.raises(ConfigError, match="circle"):
        find_notebooks(tmp_path)


def test_the_key_follows_source_parameters_and_data_but_not_outputs(tmp_path):
    path = toy_notebooks.write(tmp_path / "notebooks" / "01_a.ipynb", [("code", "1")])
    data = tmp_path / "data"
    data.mkdir()

    def key(**changes):
        return run_key(Notebook(path), {"seed": 0, "data_dir": str(data), "out_dir": "x"} | changes)

    before = key()
    assert key(out_dir="y") == before
    assert key(seed=1) != before
    notebook = nbformat.read(path, 4)
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", text="1")]
    nbformat.write(notebook, path)
    assert key() == before
    (data / "image.png").write_bytes(b"x")
    with_image = key()
    assert with_image != before
    notebook.cells[0].source = "2"
    nbformat.write(notebook, path)
    assert key() != with_image


# What the pages are made of


def evidence(dataset: str, value: float, from_run: bool) -> Evidence:
    record = Record(
        "official_test", {"residual.test_auc": Estimate(value, value - 0.1, value + 0.1)}, {}, Path("r.json")
    )
    return Evidence(dataset, "03_training", record, "r.json", from_run)


def test_the_runs_number_replaces_the_committed_one_of_the_same_dataset():
    items = [evidence("phantom", 0.8, True), evidence("phantom", 0.7, False), evidence("kermany", 0.6, False)]
    rows, datasets = scoreboard(items, "phantom")
    assert datasets == ["phantom", "kermany"]
    assert [row.cells["phantom"].value for row in rows] == ["0.800"]
    recorded = rows[0].cells["kermany"]
    assert recorded.text == "0.600 (0.500–0.700)"
    assert (recorded.value, recorded.interval) == ("0.600", "0.500–0.700")


def test_a_formula_is_drawn_in_the_texts_colour_with_its_source_as_alternative():
    drawn = svg(r"\frac{1}{N} \sum_i y_i < 2")
    assert 'fill="currentColor"' in drawn
    assert 'aria-label="\\frac{1}{N} \\sum_i y_i &lt; 2"' in drawn
    with pytest.raises(ValueError, match="nosuch"):
        svg(r"\nosuch{x}")


@pytest.mark.parametrize(
    "tex", [r"\tfrac12 \le \bigl[ x \bigr]", r"\sum\limits_i \lvert x \rvert \ne \lVert x \rVert"]
)
def test_common_tex_that_mathtext_spells_otherwise_is_drawn(tex):
    assert "<path" in svg(tex)


def test_aligned_rows_become_lines():
    assert lines(r"\begin{aligned} a &= b \\ c &= d \end{aligned}") == ["a = b", "c = d"]
    assert lines("x^2") == ["x^2"]


def cleaned(*outputs, names=None):
    cell = nbformat.v4.new_code_cell("1", outputs=list(outputs))
    return chapters.clean(nbformat.v4.new_notebook(cells=[cell]), names or {}).cells[0].outputs


def test_a_bar_that_rewrites_its_line_is_dropped_and_what_is_printed_around_it_stays():
    bar = "\rTraining:  50%|#####     | 1/2 [00:01<00:01]\rTraining: 100%|##########| 2/2 [00:02<00:00]\n"
    [output] = cleaned(nbformat.v4.new_output("stream", name="stderr", text=f"kept\n{bar}"))
    assert output.text == "kept\n"
    assert cleaned(nbformat.v4.new_output("stream", name="stderr", text=bar)) == []


def test_folders_of_this_machine_are_renamed_longest_first():
    text = "/home/me/project/cxrlib/evaluation/eda.py /home/me/project "
    text += "/home/me/projects/x <object at 0x7f0011223344>"
    names = {"/home/me": "~", "/home/me/project": ""}
    [output] = cleaned(nbformat.v4.new_output("stream", text=text), names=names)
    assert output.text == "cxrlib/evaluation/eda.py . ~/projects/x <object>"


def test_every_figure_gets_an_alternative_text():
    image = nbformat.v4.new_output("display_data", {"image/png": "x"})
    cells = [
        nbformat.v4.new_markdown_cell("# T\n\n## Curves"),
        nbformat.v4.new_code_cell("1", outputs=[image]),
    ]
    from cxrlib.report.batch import Outcome

    notebook = chapters.decorate(nbformat.v4.new_notebook(cells=cells), Outcome("01_a", "done", 1.0), "cxr")
    assert notebook.cells[1].metadata["mystnb"]["image"]["alt"] == "Figure in the section “Curves”"
    assert not notebook.cells[1].metadata.get("tags")  # what teaches is open


def test_a_solution_is_folded_with_its_output_and_all_other_code_is_open(toy):
    chapter = BeautifulSoup(page(toy, "03_training"), "html.parser")
    (fold,) = chapter.select("details.hide")
    assert "Show the solution" in fold.get_text()
    assert "the_solution" in fold.get_text() and "its output" in fold.get_text()
    assert len(chapter.select("div.cell_input")) > 3


def test_a_cell_that_stops_a_chapter_is_open_even_if_it_is_a_solution():
    from cxrlib.report.batch import Outcome

    cell = nbformat.v4.new_code_cell("1 / 0", metadata={"tags": ["solution", "hide-cell"]})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# T"), cell])
    outcome = Outcome("01_a", "failed", 1.0, error={"cell": 1, "name": "ZeroDivisionError", "message": "x"})
    chapters.decorate(notebook, outcome, "cxr")
    assert cell.metadata["tags"] == ["solution"]


def test_the_instructors_page_names_minutes_and_links_to_chapters_that_are_there(toy, tmp_path):
    text = page(toy, "instructors")
    assert re.search(r'href="03_training\.html">.*?</a></p></td>\s*<td><p>\d+\.\d min', text, re.DOTALL)
    assert "00_start_here" not in text and "{minutes" not in text
    source = (build.HERE / "pages" / "instructors.md").read_text(encoding="utf-8")
    names = [path.stem for path in sorted((project_root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))]
    assert set(names) <= set(re.findall(r"\((\w+)\.ipynb\) \| \{minutes:\1\}", source))


# The first page, the docs and the slides


def test_a_marked_number_is_strong_its_interval_small_and_the_mark_gone():
    text = "It is 0.846 (0.805–0.887)<!-- kermany/regions:most.frame.test_auc --> or 1.8%<!-- a/b:c:.1% -->."
    assert first_page.said(text) == (
        'It is <strong>0.846</strong><span class="interval"> (0.805–0.887)</span> or <strong>1.8%</strong>.'
    )


def test_a_findings_points_lie_where_their_recorded_numbers_do():
    evidence = collect(project_root() / "figures", "figures", from_run=False)
    found = {finding["title"]: finding for finding in first_page.findings(evidence)}
    assert len(found) == 3
    records = {f"{e.dataset}/{e.record.name}": e.record for e in evidence}
    for finding, wanted in zip(found.values(), first_page.table("first_page")["finding"], strict=True):
        begin, end = finding["range"]
        for point, source in zip(finding["points"], wanted["points"], strict=True):
            estimate = records[source["record"]].estimate(source["key"])
            assert format(estimate, finding.get("format", ".3f")) == f"{point['value']} ({point['interval']})"
            for name, value in (("at", estimate.value), ("low", estimate.low), ("high", estimate.high)):
                assert 0 <= point[name] <= 100
                assert begin + point[name] / 100 * (end - begin) == pytest.approx(value, abs=1e-3)
        assert (project_root() / finding["figure"]).is_file()
    assert first_page.findings([]) == []  # a copy of the project without evidence


def test_pages_of_docs_become_pages_of_the_report_and_their_links_stay_inside(tmp_path):
    root, source, out = tmp_path / "project", tmp_path / "source", tmp_path / "out"
    source.mkdir()
    for name in (
        "docs/a.md",
        "docs/data.md",
        "cards/b.md",
        "figures/x/y.json",
        "benchmarks/z.json",
        "NOTES.md",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("{}")
    (root / "docs" / "a.md").write_text(
        "[1](../figures/x/y.json) ![2](../figures/x/y.json) [3](../cards/b.md#c) [4](data.md) [5](#d) "
        "[6](https://a.b/c.md) [7](../notebooks/01_a.ipynb) [8](../README.md) [9](../NOTES.md) "
        "[10](../benchmarks/z.json) [11](../notebooks/02_b.ipynb) [12](gone.md)"
    )
    assert write_docs(root, source, out, ["01_a"]) == ["a", "data"]
    assert (source / "a.md").read_text() == (
        "[1](figures/x/y.json) ![2](figures/x/y.json) [3](card_b.md#c) [4](data.md) [5](#d) "
        "[6](https://a.b/c.md) [7](01_a.ipynb) [8](index.md) 9 "
        "[10](benchmarks/z.json) 11 12"
    )
    assert (out / "benchmarks" / "z.json").is_file() and (source / "card_b.md").read_text().startswith(
        "---\norphan: true"
    )


def test_ten_slides_each_with_its_picture_inside():
    page = BeautifulSoup(slides(project_root()), "html.parser")
    assert len(page.select("section")) == 10 == len(first_page.table("slides")["slide"])
    assert all(
        image["src"].startswith("data:image/png;base64,") and len(image["alt"]) > 20 for image in page("img")
    )
    assert not page.select("link, script[src], a[href]") and "<!--" not in str(page.main)


def test_the_explorer_stands_above_the_findings(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "write_reference", lambda *_, **__: None)
    facts = dict.fromkeys(("data_dir", "preset", "seed", "image_size", "hardware", "git_commit", "command"))
    facts |= {"dataset": "phantom", "versions": {}, "seconds": 0}
    build.write_pages(tmp_path, [], collect(project_root() / "figures", "figures", from_run=False), facts)
    text = (tmp_path / "index.md").read_text()
    assert SLOT in text[: text.index("## Three findings")]


def test_the_explorer_takes_the_place_of_the_cell_that_is_tagged_so():
    cells = [nbformat.v4.new_code_cell(text) for text in ("explorer()", "my_explorer()")]
    cells[0].metadata["tags"] = ["explorer"]
    notebook = nbformat.v4.new_notebook(cells=cells)
    made = chapters.decorate(notebook, Outcome("07_a", "done", 1.0), "cxr").cells
    assert [SLOT in cell.source for cell in made] == [False, False, True, False]
