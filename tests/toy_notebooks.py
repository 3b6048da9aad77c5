"""Three tiny notebooks for the tests of the report: one goes well, one raises, the kernel of one dies."""

import json
from io import StringIO
from pathlib import Path

import nbformat
from rich.console import Console

PARAMETERS = """\
dataset = "phantom"
data_dir = None
image_size = 128
preset = "course"
seed = 0
out_dir = None"""

GOOD = [
    (
        "markdown",
        "# A chapter that goes well\n\nIt looks at $\\hat{p}$ and at calibration.\n"
        "Next: [the other](02_raises.ipynb).",
    ),
    ("parameters", PARAMETERS),
    (
        "markdown",
        "## The loss\n\n"
        "$$\\mathcal{L} = -\\frac{1}{N}\\sum_{i=1}^{N} "
        "\\left[y_i \\log p_i + (1-y_i)\\log(1-p_i)\\right]$$\n\n"
        "```{math}\n\\begin{aligned} a &= b + c \\\\ d &= \\ln 2 \\end{aligned}\n```\n\n"
        "As [above](#the-loss).",
    ),
    (
        "code",
        "import matplotlib.pyplot as plt\n"
        "from pathlib import Path\n"
        "from cxrlib.evaluation import results\n"
        "from cxrlib.evaluation.metrics import Estimate\n"
        "figure, axis = plt.subplots(figsize=(4, 3))\n"
        "axis.plot([0, 1], [seed, 1])\n"
        'numbers = {"residual.test_auc": Estimate(0.9, 0.85, 0.95, n=624), "seconds": 3.0}\n'
        'made = {"dataset": dataset, "notebook": "03_training", "preset": preset}\n'
        'results.record(None, "official_test", numbers, out_dir=out_dir, **made)\n'
        "figure",
    ),
    (
        "code",
        "import sys\n"
        "from IPython.display import Markdown, display\n"
        "from tqdm.auto import tqdm\n"
        "import tqdm as terminal\n"
        'for _ in tqdm(range(3), desc="bars vanish"):\n    pass\n'
        'for _ in terminal.tqdm(range(3), desc="bars vanish"):\n    pass\n'
        'table = "| a | b |\\n|---|---|\\n| 1 | 2 |"\n'
        'display(Markdown(f"Computed: the seed is **{seed}** and $x^2$.\\n\\n{table}"))\n'
        "print(Path.cwd(), results.project_root(), object())\n"
        "axis",
    ),
    (
        "code",
        'import pandas as pd\npd.DataFrame({f"a rather wide column {i}": range(3) for i in range(12)})',
    ),
    ("solution", "the_solution = 42\nprint('its output')"),
]
TAGS = {"parameters": ["parameters"], "solution": ["solution", "hide-cell"]}
RAISES = [
    ("markdown", "# A chapter that raises"),
    ("parameters", PARAMETERS),
    ("code", 'print("before the error")'),
    (
        "code",
        "from cxrlib.errors import DataError\n"
        'raise DataError("Column <label> is missing.", remedy="Name it.")',
    ),
    ("code", 'print("never reached")'),
]
DIES = [
    ("markdown", "# A chapter whose kernel dies"),
    ("parameters", PARAMETERS),
    ("code", 'print("last words")'),
    ("code", "import os\nimport signal\nos.kill(os.getpid(), signal.SIGKILL)"),
    ("code", 'print("never reached")'),
]


def write(path: Path, cells: list[tuple[str, str]], needs: tuple[str, ...] = ()) -> Path:
    """Write a notebook of (kind, source) cells; the kinds of ``TAGS`` are tagged code cells."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "cxr": {"needs": list(needs)},
    }
    for number, (kind, source) in enumerate(cells):
        if kind == "markdown":
            cell = nbformat.v4.new_markdown_cell(source)
        else:
            cell = nbformat.v4.new_code_cell(source)
            if kind in TAGS:
                cell.metadata["tags"] = TAGS[kind]
        cell["id"] = f"cell-{number}"
        notebook.cells.append(cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def write_all(folder: Path) -> Path:
    """The three of them, numbered with gaps."""
    write(folder / "02_raises.ipynb", RAISES)
    write(folder / "03_training.ipynb", GOOD)
    write(folder / "05_dies.ipynb", DIES, needs=("03_training",))
    return folder


def toy_report(root: Path) -> None:
    """Run and render the three into ``root/report``; ``root/said.json``: exit status, what was said."""
    from cxrlib.evaluation.metrics import Estimate
    from cxrlib.evaluation.results import record
    from cxrlib.report.report import run_report

    said = StringIO()
    old = {"residual.test_auc": Estimate(0.7, 0.65, 0.75, n=624), "seconds": 2.0, "gone": 1}
    record(None, "official_test", old, dataset="phantom", notebook="03_training", out_dir=root / "older")
    status = run_report(
        preset="smoke",
        jobs=2,
        out=root / "report",
        compare_with=root / "older",
        single_file=True,
        notebooks_dir=write_all(root / "notebooks"),
        console=Console(file=said, width=200),
    )
    (root / "said.json").write_text(json.dumps([status, said.getvalue()]), encoding="utf-8")


def committed_report(root: Path) -> None:
    """The project's notebooks as they are committed, outputs included, rendered into ``root/report``."""
    from cxrlib.evaluation.results import project_root
    from cxrlib.report.batch import Outcome, find_notebooks
    from cxrlib.report.report import render

    notebooks, _ = find_notebooks(project_root() / "notebooks")
    out = root / "report"
    (out / ".build").mkdir(parents=True)
    render(
        out,
        project_root() / "notebooks",
        {notebook.name: Outcome(notebook.name, "done", 0.0) for notebook in notebooks},
        {notebook.name: notebook.path for notebook in notebooks},
        {"dataset": "phantom", "preset": "course", "seed": 0},
        "cxr report",
        single_file=True,
    )
