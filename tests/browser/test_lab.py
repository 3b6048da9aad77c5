"""A learner's way: JupyterLab as ``make lab`` starts it, a notebook run from the menu to its end."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import committed
import nbformat
import pytest

from browser.test_explorer import said
from browser.test_site import Watched, browser  # noqa: F401  (a fixture)
from cxrlib.evaluation.results import default_out_dir, project_root, recorded

pytestmark = pytest.mark.browser

NOTEBOOK = "00_start_here"
WATCH_BARS = """() => {
  window.bars = 0;
  const bar = '.jp-Notebook .widget-html, .jp-Notebook .widget-hprogress';
  const look = () => { bars = Math.max(bars, document.querySelectorAll(bar).length); };
  new MutationObserver(look).observe(document.body, {childList: true, subtree: true});
}"""
STALE = ("Loading widget", "Error displaying widget", '"model_id"', "<Figure size", "HBox(children")


def as_make_starts_it(*arguments: str) -> tuple[list[str], dict[str, str]]:
    """What ``make lab`` calls, with this Python: command and variables."""
    if shutil.which("make") is None:
        pytest.skip("no make: JupyterLab is started as make starts it")
    said = subprocess.run(
        ["make", "-n", "--no-print-directory", "lab", f"ARGS={shlex.join(arguments)}"],
        cwd=project_root(),
        capture_output=True,
        text=True,
        check=True,
    )
    words = shlex.split(said.stdout.strip().splitlines()[-1])
    variables = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    command = words[len(variables) :]
    assert command[1:3] == ["-m", "jupyterlab"]
    return [sys.executable, *command[1:]], variables


@contextmanager
def lab(folder: Path):
    """JupyterLab on a folder that holds ``notebooks/``, with nothing of the user's: yields its address."""
    own = {
        f"JUPYTER{name}": str(folder / "jupyter" / name.strip("_").lower())
        for name in ("_CONFIG_DIR", "_DATA_DIR", "_RUNTIME_DIR", "LAB_SETTINGS_DIR", "LAB_WORKSPACES_DIR")
    }
    own |= {"IPYTHONDIR": str(folder / "ipython"), "JUPYTER_PREFER_ENV_PATH": "1"}
    own["PYTHONPATH"] = os.pathsep.join(filter(None, [str(project_root()), os.environ.get("PYTHONPATH")]))
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"} | own
    options = ["--no-browser", "--port=0", "--IdentityProvider.token=walk"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.append("--allow-root")
    command, variables = as_make_starts_it(*options)
    log = folder / "lab.log"
    with log.open("w") as said:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env=environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 120
        while not (found := list(folder.glob("jupyter/runtime_dir/jpserver-*.json"))):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield json.loads(found[0].read_text())["url"]
    finally:
        server.terminate()  # kernels end with it
        try:
            server.wait(timeout=30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def copy_of_notebooks(folder: Path, names: list[str]) -> None:
    """The project's notebooks without their outputs, in ``folder/notebooks``."""
    (folder / "notebooks").mkdir()
    for name in names:
        notebook = nbformat.read(project_root() / "notebooks" / f"{name}.ipynb", as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, folder / "notebooks" / f"{name}.ipynb")


def run_all_cells(page, address: str, name: str, seconds: float) -> None:
    """Open a notebook, choose Run > Run All Cells, wait for the last one, save from the menu."""
    page.goto(f"{address}lab/tree/{name}.ipynb?token=walk&reset")
    page.wait_for_selector(".jp-Toolbar-kernelName:has-text('Python 3')", timeout=120_000)
    idle = page.locator(".jp-StatusBar-Widget :text('Python 3 (ipykernel) | Idle')").first
    idle.wait_for(timeout=120_000)
    page.evaluate(WATCH_BARS)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    prompts = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(p => p.textContent)"
    page.wait_for_function(f"{prompts}.some(text => /[\\d*]/.test(text))", timeout=60_000)
    page.wait_for_function(f"!{prompts}.some(text => text.includes('*'))", timeout=seconds * 1000)
    idle.wait_for(timeout=60_000)
    page.get_by_role("menuitem", name="File", exact=True).click()
    page.get_by_role("menuitem", name=re.compile("^Save Notebook(?! As)")).click()
    page.wait_for_selector("#jp-main-dock-panel .lm-TabBar-tab.jp-mod-current:not(.jp-mod-dirty)")


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """JupyterLab on the first chapter and a notebook that shows the explorer: its folder and address."""
    folder = tmp_path_factory.mktemp("lab")
    copy_of_notebooks(folder, [NOTEBOOK])
    cell = nbformat.v4.new_code_cell("from cxrlib.report.explorer import explorer\nexplorer()")
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata=kernel)
    nbformat.write(notebook, folder / "notebooks" / "explorer.ipynb")
    with lab(folder) as address:
        yield folder, address


@pytest.fixture(scope="module")
def walk(browser, started):  # noqa: F811
    """The first chapter, as it is, run by a click: its page, what the page asked for, what it saved."""
    folder, address = started
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    run_all_cells(page, address, NOTEBOOK, seconds=600)
    saved = nbformat.read(folder / "notebooks" / f"{NOTEBOOK}.ipynb", as_version=4)
    yield page, asked, saved
    context.close()


def outputs(notebook) -> list:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def test_every_cell_runs_and_none_complains(walk):
    _, _, saved = walk
    code = [cell for cell in saved.cells if cell.cell_type == "code" and cell.source.strip()]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert [o.evalue for o in outputs(saved) if o.output_type == "error"] == []
    assert [o.text for o in outputs(saved) if o.get("name") == "stderr"] == []


def test_it_shows_again_what_the_committed_notebook_shows(walk):
    """Exactly, up to the first training and where records are quoted: trained numbers differ by machine."""
    _, _, saved = walk
    cells = committed.code_cells(committed.read(NOTEBOOK))
    if not any(cell.outputs for cell in cells):
        pytest.skip(f"{NOTEBOOK} has been changed and has no outputs yet: make notebooks")
    first = next(number for number, cell in enumerate(cells) if "train_or_load(" in cell.source)
    pairs = list(zip(cells, committed.code_cells(saved), strict=True))
    same = [pair for number, pair in enumerate(pairs) if number < first or committed.quotes(pair[0])]
    for old, new in same:
        now = [committed.shown(output) for output in new.outputs if "widget-view" not in str(output)]
        assert now == [committed.shown(output) for output in old.outputs], old.source
    assert sum(len(old.outputs) for old, _ in same) >= 5


def test_it_measures_again_what_is_recorded(walk):
    """The same test images, and a network as good: each number lies in the interval that is recorded."""
    once = recorded("phantom/first_network")
    again = recorded(f"phantom/{NOTEBOOK}/first_network", root=default_out_dir())
    assert again.provenance["preset"] == once.provenance["preset"]
    assert again.numbers.keys() == once.numbers.keys()
    for name, estimate in once.numbers.items():
        assert again.estimate(name).n == estimate.n
        # 95% of redrawn test sets: far more than one processor's rounding moves a training
        assert estimate.low <= again.estimate(name).value <= estimate.high, name


def test_bars_are_drawn_and_nothing_stays_behind(walk):
    page, _, _ = walk
    assert page.evaluate("bars") > 0
    assert page.locator(".jp-Notebook .jp-OutputArea-output .widget-html").count() == 0
    text = "\n".join(page.locator(".jp-Notebook .jp-OutputArea-output").all_text_contents())
    assert [stale for stale in (*STALE, "%|") if stale in text] == []


def test_nothing_is_asked_of_another_machine(walk):
    page, asked, _ = walk
    hosts = {urlsplit(url).hostname for url in asked if urlsplit(url).scheme.startswith(("http", "ws"))}
    assert hosts <= {"localhost", "127.0.0.1"}
    page.get_by_role("menuitem", name="View", exact=True).click()
    assert page.get_by_role("menuitem", name="Table of Contents").count() == 1
    assert page.get_by_role("menuitem", name="Extension Manager").count() == 0
    assert page.get_by_text("Jupyter news").count() == 0


def test_the_explorer_runs_in_a_notebook(browser, started):  # noqa: F811
    with Watched(browser) as watched:
        watched.context.set_offline(False)
        page = watched.page
        run_all_cells(page, started[1], "explorer", seconds=120)
        page.get_by_label("Lead letter on the film").check()
        assert said(page) == {"naive": "ill", "lungs": "healthy"}
        assert not [one for one in watched.problems if one.startswith("script")]
