"""``cxr`` as a user types it: what it prints, what it writes, and its exit status."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from cxrlib.cli.main import app

PHANTOM = ["--image-size", "32", "--limit", "120"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A LeNet trained by the command line on a few phantoms."""
    out = tmp_path_factory.mktemp("runs") / "lenet"
    arguments = ["train", "--model", "lenet", "--preset", "smoke", "--out", str(out), *PHANTOM]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    return out


@pytest.fixture
def own_images(tmp_path):
    """A user's folder: twelve PNGs and a CSV with columns of their own names."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(60):
        pixels = rng.integers(0, 200, (40, 40)) + 50 * (i % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"film{i:02d}.png")
        rows.append({"file": f"film{i:02d}.png", "finding": i % 2, "person": f"p{i // 2}"})
    pd.DataFrame(rows).to_csv(tmp_path / "labels.csv", index=False)
    return tmp_path


def test_help_names_every_command_and_the_intended_use(cxr):
    status, out, _ = cxr("--help")
    assert status == 0
    assert all(command in out for command in ("data", "train", "evaluate", "predict", "report"))
    assert "not for clinical use" in out.lower()


def test_data_list_knows_every_source_in_text_and_json(cxr):
    _, text, _ = cxr("data", "list")
    _, out, _ = cxr("data", "list", "--json")
    assert set(json.loads(out)) == {
        "phantom", "nih", "kermany", "pneumoniamnist", "chestmnist", "lung_masks", "folder",
        "rsna", "chexpert",
        "padchest", "openi", "mimic_cxr_jpg", "vindr",
    }  # fmt: skip
    assert all(name in text for name in json.loads(out))


def test_data_show_counts_what_is_there(cxr):
    _, out, _ = cxr("data", "show", "phantom", "--json", *PHANTOM)
    facts = json.loads(out)
    assert facts["images"] == 120
    assert sum(sum(counts.values()) for counts in facts["splits"].values()) == 120


def test_an_unknown_source_ends_with_status_1_and_the_names_there_are(cxr):
    status, out, err = cxr("data", "show", "kermani")
    assert status == 1
    assert not out
    assert "kermany" in err and "What to do:" in err and "Traceback" not in err


def test_an_unknown_option_ends_with_status_2(cxr):
    status, _, err = cxr("train", "--no-such-option")
    assert status == 2
    assert "No such option" in err


def test_training_leaves_checkpoints_and_logs(trained):
    assert {path.name for path in trained.iterdir()} == {"last.pt", "best.pt", "tensorboard"}


def test_training_again_into_the_same_folder_asks_for_resume(cxr, trained):
    status, _, err = cxr("train", "--model", "lenet", "--preset", "smoke", "--out", trained, *PHANTOM)
    assert status == 1
    assert "--resume" in err


def test_resume_of_a_finished_training_changes_nothing(cxr, trained):
    command = [
        "train",
        "--model",
        "lenet",
        "--preset",
        "smoke",
        "--out",
        trained,
        *PHANTOM,
        "--resume",
        "--json",
    ]
    first, second = (json.loads(cxr(*command)[1]) for _ in range(2))
    assert first == second


def test_evaluate_gives_every_metric_with_its_interval(cxr, trained):
    status, out, _ = cxr("evaluate", trained / "last.pt", "--limit", 120, "--json", "--threshold", 0.5)
    result = json.loads(out)
    assert status == 0
    for metric in ("auc", "average_precision", "sensitivity", "specificity", "accuracy"):
        assert result[metric]["low"] <= result[metric]["value"] <= result[metric]["high"]


@pytest.mark.filterwarnings("default::cxrlib.errors.CxrWarning")
def test_predict_writes_a_probability_for_each_image(cxr, trained, own_images):
    out = own_images / "predictions.csv"
    status, _, err = cxr("predict", trained / "last.pt", own_images, "--out", out)
    table = pd.read_csv(out)
    assert status == 0 and "no images that can be read and are left out: 1 (no image, *.csv)" in err
    assert len(table) == 60
    assert table["probability"].between(0, 1).all()


@pytest.mark.filterwarnings("ignore::cxrlib.errors.CxrWarning")  # of labels.csv in the folder
def test_predict_names_a_bad_file_and_goes_on_without_it_when_told(cxr, trained, own_images):
    (own_images / "broken.png").write_bytes(b"no image")
    status, _, err = cxr("predict", trained / "last.pt", own_images)
    assert status == 1
    assert "broken.png" in err
    status, out, err = cxr("predict", trained / "last.pt", own_images, "--skip-bad", "--json")
    assert status == 0
    assert len(json.loads(out)) == 60
    assert "broken.png" in err


def test_a_user_trains_on_their_own_folder(cxr, own_images, tmp_path):
    status, out, err = cxr(
        "train", "--dataset", "folder", "--data-dir", own_images, "--labels", own_images / "labels.csv",
        "--set", "image_column=file", "--set", "label_column=finding", "--set", "patient_column=person",
        "--model", "lenet", "--preset", "smoke", "--image-size", 32, "--out", tmp_path / "run", "--json",
    )  # fmt: skip
    assert status == 0, err
    assert 0 <= json.loads(out)["val_auc"] <= 1


def test_a_missing_column_is_named_beside_those_there_are(cxr, own_images, tmp_path):
    status, _, err = cxr(
        "train", "--dataset", "folder", "--data-dir", own_images, "--labels", own_images / "labels.csv",
        "--set", "image_column=file", "--set", "label_column=pneumonia", "--out", tmp_path / "run",
    )  # fmt: skip
    assert status == 1
    assert "pneumonia" in err and "finding" in err and "labels.csv" in err


def test_a_checkpoint_that_is_none_is_named(cxr, tmp_path):
    (tmp_path / "notes.pt").write_text("hello")
    status, _, err = cxr("evaluate", tmp_path / "notes.pt")
    assert status == 1
    assert "notes.pt" in err and "Traceback" not in err


def test_evaluate_divides_the_patients_as_the_training_did(cxr, own_images, tmp_path):
    labels = own_images / "labels.csv"
    source = ["--dataset", "folder", "--data-dir", own_images, "--labels", labels]
    for option in ("image_column=file", "label_column=finding", "patient_column=person"):
        source += ["--set", option]
    run = tmp_path / "run"
    cxr(
        "train",
        *source,
        "--model",
        "lenet",
        "--preset",
        "smoke",
        "--image-size",
        32,
        "--seed",
        3,
        "--out",
        run,
    )
    counts = [
        json.loads(cxr("evaluate", run / "last.pt", *source, "--json", "--threshold", 0.5, *seed)[1])[
            "images"
        ]
        for seed in ([], ["--seed", 3])
    ]
    assert counts[0] == counts[1]


def test_ctrl_c_says_that_what_was_finished_is_kept(cxr, monkeypatch):
    def interrupted():
        sys.exit(130)  # as Typer does

    monkeypatch.setattr("cxrlib.cli.main.app", interrupted)
    status, _, err = cxr("audit")
    assert status == 130 and "What was finished is kept for the next run." in err


def test_a_terminal_that_cannot_print_a_dash_is_no_failure():
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "cxrlib.cli", "study", "list"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "pixel_free" in done.stdout and "?" in done.stdout and done.stdout.isascii()
