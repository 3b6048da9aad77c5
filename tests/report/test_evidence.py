"""The evidence's studies: each runs, the registry and ``figures/`` are one list, commands can be typed."""

import base64
import json
import shlex
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image
from real_files import links

from cxrlib.errors import ConfigError
from cxrlib.evaluation.results import project_root, read_record, recorded
from cxrlib.report.batch import Outcome
from cxrlib.report.evidence.radiographs import CHILDREN
from cxrlib.report.evidence.registry import FOLDERS, STUDIES, checked, command
from cxrlib.report.evidence.show import evidence, folded
from cxrlib.report.evidence.strata import LABELS
from cxrlib.report.site.chapters import clean, decorate
from cxrlib.studies import missing_stratum, strata

FIGURES = project_root() / "figures"
RECORDS = [path.relative_to(FIGURES).with_suffix("").as_posix() for path in sorted(FIGURES.glob("*/*.json"))]
FREE = [name for name, e in STUDIES.items() if any(not e.needs(d) for d in e.datasets)]


def test_every_file_in_figures_is_a_studys_and_every_study_is_recorded():
    pairs = {f"{dataset}/{name}" for name, e in STUDIES.items() for dataset in e.recorded}
    files = {path.relative_to(FIGURES).as_posix() for path in FIGURES.rglob("*") if path.is_file()}
    known = {f"{pair}.{kind}" for pair in pairs for kind in ("png", "json")}
    others = {"SOURCES.md", "kermany/strata_labels.csv", "kermany/strata_labels.md", "phantom/explorer.gif"}
    assert files - others == known


@pytest.mark.parametrize("place", RECORDS)
def test_a_records_command_is_one_that_works_now(place, tmp_path):
    record = read_record(FIGURES / f"{place}.json")
    program, word, name, *words = shlex.split(record.command)
    assert (program, word, name) == ("cxr", "study", record.name)
    given = {
        key.removeprefix("--").replace("-", "_"): value
        for key, value in zip(words[::2], words[1::2], strict=True)
    }
    options = {key: tmp_path for key in FOLDERS if given.pop(key, None) is not None}
    seeds = [int(seed) for seed in given.pop("seeds").split(",")]
    size = given.pop("image_size", None)
    run = checked(name, seeds=seeds, image_size=size and int(size), **given, **options)
    assert command(name, run) == record.command
    assert f"{run.dataset}/{name}" == place
    assert run.preset == record.provenance["preset"]


@pytest.fixture(autouse=True, scope="module")
def _letters_once():
    """The letter is looked for once in each image that was read; three studies ask, of all or some."""
    look, known = missing_stratum.letter_features, {}

    def looked(cohort, rows):
        names = cohort.table["image_id"].to_numpy()[rows]
        new = np.array([name not in known for name in names])
        known.update(zip(names[new], look(cohort, np.asarray(rows)[new]) if new.any() else (), strict=True))
        return np.stack([known[name] for name in names])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(missing_stratum, "letter_features", looked)
        yield


@pytest.fixture
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("evidence")


def made(cxr, out: Path, name: str, dataset: str, *options):
    size = STUDIES[name].image_size
    # strata trains twice on all of Kermany's
    options += ("--image-size", 32 if name == "strata" else 64) if size and name != "dice" else ()
    status, said, err = cxr("study", name, "--dataset", dataset, "--preset", "smoke", "--out", out, *options)
    assert status == 0, err
    record = read_record(out / dataset / f"{name}.json")
    assert record.numbers and record.command in said.replace("\n", " ")
    assert Image.open(record.image_path).size[0] > 200
    return record


# Of a network that was trained for seven steps they may:
@pytest.mark.filterwarnings("ignore:All logits lie between 0 and 1")
@pytest.mark.parametrize("name", FREE)
def test_a_study_runs_at_preset_smoke_without_anyones_images(cxr, out, name):
    entry = STUDIES[name]
    dataset = "phantom" if "phantom" in entry.datasets else entry.datasets[0]
    found = made(cxr, out, name, dataset)
    if (FIGURES / dataset / f"{name}.json").is_file():
        recorded = read_record(FIGURES / dataset / f"{name}.json")
        if name not in ("dose_response", "remedies"):  # what is planted, or tried, depends on the preset
            assert found.numbers.keys() == recorded.numbers.keys() or set(found.numbers) <= set(
                recorded.numbers
            )


@pytest.fixture(scope="session")
def real(data_root, some_of_nih, once):
    """The folders that studies need; of Kermany's radiographs those read by eye or shown, and every tenth."""
    root = data_root / "kermany224" / "chest_xray"
    templates = {cut[0] for cut in (strata._TALL, strata._SMALL, strata._SERIF)}
    wanted = {*strata.read_labels(LABELS)["image_id"], *CHILDREN, *templates}
    every = {path.relative_to(root).as_posix(): path for path in sorted(root.glob("*/*/*.jpeg"))}
    assert wanted <= set(every)
    some = [path for n, (name, path) in enumerate(every.items()) if n % 10 == 0 or name in wanted]
    return {
        "data_dir": {
            "kermany": once("kermany-read", lambda folder: links(folder, root, some)),
            "lung_masks": data_root / "lung-masks",
            "nih": some_of_nih / "images",
        },
        "nih_dir": some_of_nih / "images",
        "chexnet_dir": data_root / "chexnet-predictions",
    }


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "dataset"),
    [(e.name, d) for e in STUDIES.values() for d in e.recorded if e.needs(d) and e.name != "dice"],
)
@pytest.mark.filterwarnings("ignore:All logits lie between:cxrlib.errors.CxrWarning")  # networks of one step
@pytest.mark.filterwarnings("ignore:.*published are train:cxrlib.errors.CxrWarning")  # some of the images
def test_a_study_of_real_radiographs_runs_at_preset_smoke(cxr, out, data_root, real, name, dataset):
    options = []
    for folder in STUDIES[name].needs(dataset):
        place = real[folder] if folder != "data_dir" else real[folder][dataset]
        if name == "strata":  # a network of one epoch on fewer calls all ill, and there is no fall to explain
            place = data_root / "kermany224" / "chest_xray"
        options += [f"--{folder.replace('_', '-')}", place]
    made(cxr, out, name, dataset, *options)


def test_the_list_names_every_study_and_its_question(cxr):
    status, said, _ = cxr("study", "list", "--json")
    assert status == 0
    assert [one["name"] for one in json.loads(said)] == list(STUDIES)
    assert all(one["answers"].endswith("?") for one in json.loads(said))


def test_a_network_that_was_trained_is_taken_from_the_store(cxr, out):
    first, again = (made(cxr, out, "first_network", "phantom") for _ in range(2))
    assert first.numbers == again.numbers
    assert again.provenance["seconds"] < first.provenance["seconds"] + 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["no_such"], "cxr study list"),
        (["regions", "--dataset", "kermany"], "--data-dir"),
        (["metadata"], "--chexnet-dir"),
        (["age", "--dataset", "phantom"], "does not run on 'phantom'"),
        (["age", "--seeds", "0,1"], "one seed"),
        (["regions", "--dataset", "phantom", "--seeds", "0,0"], "no list of seeds"),
        (["regions", "--dataset", "kermany", "--data-dir", "/nowhere/at/all"], "no folder"),
        (["regions", "--dataset", "phantom", "--chexnet-dir", "/"], "needs no folder"),
    ],
)
def test_what_cannot_be_run_is_refused_with_what_to_do(cxr, tmp_path, words, said):
    status, _, err = cxr("study", *words, "--out", tmp_path)
    assert status == 1 and said in err.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def shown(monkeypatch):
    """What a notebook would put out, as (data, metadata)."""
    outputs = []

    def display(thing):
        outputs.append(thing._repr_png_() if hasattr(thing, "_repr_png_") else (thing._repr_html_(), {}))

    monkeypatch.setattr("cxrlib.report.evidence.show.display", display)
    return outputs


def test_one_line_shows_figure_caption_numbers_and_command(shown):
    evidence("kermany/official_test", keys=["residual.test_auc"])
    (picture, facts), (text, _) = shown
    assert base64.b64decode(picture)[:4] == b"\x89PNG"
    assert str(recorded("kermany/official_test").estimate("residual.test_auc")) in text
    assert "lenet.test_auc" not in text
    assert "cxr study official_test --dataset kermany" in text and facts["alt"] in text


def test_in_the_site_the_caption_is_the_alternative_text_and_the_table_stays_folded(shown):
    evidence("kermany/official_test")
    (picture, facts), (text, _) = shown
    outputs = [
        nbformat.v4.new_output("display_data", data={"image/png": picture}, metadata={"image/png": facts}),
        nbformat.v4.new_output("display_data", data={"text/html": text}),
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("evidence()", outputs=outputs)])
    notebook = decorate(clean(notebook, {}), Outcome("03", "done", 1.0), "cxr")
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert cell.metadata["mystnb"]["image"]["alt"] == facts["alt"]
    assert cell.outputs[1].data["text/html"] == text


def test_a_record_with_many_numbers_says_how_many_it_leaves_out():
    record = read_record(FIGURES / "phantom" / "remedies.json")
    text = folded(record)
    assert text.count("<tr><td>") == 24 and f"{len(record.numbers) - 24} more" in text


def test_what_is_not_recorded_is_said_and_what_is_no_study_refused(shown):
    evidence("pneumoniamnist/regions")
    assert "not recorded" in shown[0][0]
    with pytest.raises(ConfigError, match="no study"):
        evidence("kermany/regionss")
