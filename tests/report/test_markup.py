"""Names and values from strangers are text: on the audit's page, in the report, in figures, on a terminal."""

import json
import re
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrlib.audit.plots import scorecard
from cxrlib.plots.eda import prevalence
from cxrlib.plots.style import as_text
from cxrlib.report.site.chapters import clean
from cxrlib.report.site.safe import safe_html, safe_markdown

SCRIPT = "<script>window.owned=1</script>"
IMAGE = "<img src=http://127.0.0.1:9/x onerror=window.owned=1>"
NASTY = (
    SCRIPT, IMAGE, "**bold** [a](javascript:alert(1)) ![b](http://127.0.0.1:9/y)", r"$\frac{1}$ cost $5",
    "\x1b[31mred\x1b]0;title\x07", "two\nlines", "\u202egnp.exe", "[red]x[/nothing]", "</details></style>",
)  # fmt: skip
SIZE = ["--image-size", "32", "--workers", "1"]


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """90 images whose names, patients, columns and values are markup; one column gives the label away."""
    root, rng, rows = tmp_path_factory.mktemp("films"), np.random.default_rng(0), []
    for i in range(90):
        pixels = rng.integers(30, 200, (40, 40)).astype(np.uint8)
        ill = (i // 2) % 2
        pixels[1:6, 1:6] = 255 if ill else 40
        nasty = NASTY[i % len(NASTY)].replace("/", "_")
        name = f"{i:02d}{nasty}.png"
        try:
            Image.fromarray(pixels).save(root / name)
        except OSError:
            pytest.skip("this system has no such names")
        near = ill if i % 7 else 1 - ill
        row = {"image": name, "label": ("well" + IMAGE, "ill" + SCRIPT)[ill]}
        row |= {"patient_id": f"{NASTY[i % 9]}{i // 2}", "site": NASTY[i % 2]}
        row |= {f"ward{SCRIPT}": (SCRIPT, IMAGE)[near], r"a $\frac{1}$ [b](c)": NASTY[near + 3]}
        rows.append(row)
    pd.DataFrame(rows).to_csv(root / "labels.csv", index=False)
    return root


@pytest.fixture(scope="module")
def audited(films, tmp_path_factory):
    """The folder of an audit of these images."""
    from cxrlib.cli import main as cli

    out = tmp_path_factory.mktemp("out")
    label = f"positive=ill{SCRIPT}"
    command = ["cxr", "audit", films, "--labels", "labels.csv", "--out", out, "--set", label, *SIZE]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr("sys.argv", list(map(str, command)))
        cli.main()
    assert ended.value.code == 2
    return out


def test_the_page_holds_no_tag_of_a_strangers(audited):
    page = (audited / "audit.html").read_text(encoding="utf-8")
    assert "<script" not in page and "<img src=http" not in page and "&lt;script&gt;" in page
    assert page.count("</details>") == len(re.findall(r"<details[ >]", page)) and page.count("</style>") == 1
    stored = json.loads((audited / "audit.json").read_text(encoding="utf-8"))
    assert any(SCRIPT in finding["title"] for finding in stored["findings"])


def test_the_terminal_gets_no_escape_of_a_strangers(cxr, films, tmp_path):
    status, out, err = cxr(
        "audit", films, "--labels", "labels.csv", "--out", tmp_path, "--set", f"positive=ill{SCRIPT}", *SIZE
    )
    assert status == 2, err
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", out + err)


@pytest.mark.browser
def test_nothing_runs_and_nothing_is_fetched_in_a_browser(audited):
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        asked, said = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("dialog", lambda dialog: said.append(dialog.message) or dialog.dismiss())
        page.goto((audited / "audit.html").as_uri(), wait_until="load")
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page.evaluate("window.owned === undefined")
        assert SCRIPT in page.inner_text("main")
        browser.close()
    assert not said and all(url.startswith(("file:", "data:")) for url in asked)


@pytest.mark.parametrize("text", NASTY)
def test_figures_draw_names_letter_by_letter(text):
    figure, ax = plt.subplots()
    drawn = ax.set_title(as_text(text))
    figure.canvas.draw()  # as a formula, one of them cannot be drawn at all
    assert not drawn._preprocess_math(drawn.get_text())[1]
    plt.close(figure)


def test_columns_and_levels_are_drawn_as_text():
    columns = {name: [0.2, 0.3] for name in ("prevalence", "low", "high", "wilson_low", "wilson_high")}
    table = pd.DataFrame({**columns, "images": [3, 4]}, index=list(NASTY[3:5]))
    ax = prevalence(table, NASTY[3], NASTY[3])
    ax.figure.canvas.draw()
    plt.close(ax.figure)


def test_the_scorecard_draws_a_columns_name_as_text():
    from cxrlib.audit.probes import Finding
    from cxrlib.audit.rules import PROBES, column_probe
    from cxrlib.audit.run import Audit
    from cxrlib.evaluation.metrics import Estimate

    auc = Estimate(0.8, 0.7, 0.9)
    found = tuple(Finding(probe, "note", auc) for probe in (PROBES["whole"], column_probe(NASTY[3])))
    figure = scorecard(Audit(found, {}, (), {}))
    figure.canvas.draw()
    plt.close(figure)


def test_a_chapters_outputs_hold_tables_and_no_other_tag():
    table = pd.DataFrame({"a": [SCRIPT]}, index=pd.Index([IMAGE], name="site"))
    for made in (table.style.to_html(), table.to_html(), table.to_html(escape=False)):
        safe = safe_html(made)
        assert "<script" not in safe and "<img" not in safe and "&lt;script&gt;" in safe and "<td" in safe
    assert safe_html(table.to_html()).count("<td") == 1
    for bad in (
        "<style>td{background:url(http://a)}</style>x",
        "<a href='javascript:x'>x</a>",
        "<b onclick=x>x</b>",
    ):
        assert not re.search(r"<(a|b)\b|url\(", safe_html(bad)) and "x" in safe_html(bad)
    assert safe_html('<td onclick="x" class="c" style="position:fixed">1</td>') == '<td class="c">1</td>'
    assert safe_markdown(f"**warning: {SCRIPT}** ![x](http://a) p < 0.001").count("<") == 1
    display = nbformat.v4.new_output("display_data", {"text/markdown": SCRIPT, "text/html": SCRIPT})
    cell = nbformat.v4.new_code_cell("x", outputs=[display])
    cleaned = clean(nbformat.v4.new_notebook(cells=[cell]), {}).cells[0].outputs[0]
    assert not [text for text in cleaned.data.values() if "<script" in text]


def test_committed_outputs_pass_as_they_are():
    from cxrlib.evaluation.results import project_root

    for path in (project_root() / "notebooks").glob("*.ipynb"):
        for cell in json.loads(Path(path).read_text(encoding="utf-8"))["cells"]:
            for output in cell.get("outputs", ()):
                data = output.get("data", {})
                made, said = "".join(data.get("text/html", "")), "".join(data.get("text/markdown", ""))
                assert safe_html(made).count("&lt;") == made.count("&lt;") and safe_markdown(said) == said, (
                    path
                )
