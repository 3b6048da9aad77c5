"""``cxr audit`` as a user types it: files in, scorecard, page and exit status out."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image


def _folder(root, leak, n=90):
    """Noise, two images a patient; ``leak``: a white square in a corner of those with the label."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):
        pixels = rng.integers(30, 200, (40, 40)).astype(np.uint8)
        ill = (i // 2) % 2
        if leak and ill:
            pixels[1:6, 1:6] = 255
        Image.fromarray(pixels).save(root / f"film{i:02d}.png")
        rows.append({"image": f"film{i:02d}.png", "label": ill, "patient_id": f"p{i // 2}"})
    pd.DataFrame(rows).to_csv(root / "labels.csv", index=False)
    return root


@pytest.fixture(scope="module")
def leaky(tmp_path_factory):
    return _folder(tmp_path_factory.mktemp("leaky"), True)


SIZE = ["--image-size", "32", "--workers", "1"]


def test_a_severe_shortcut_ends_with_status_2_and_leaves_page_and_json(cxr, leaky, tmp_path):
    status, text, err = cxr("audit", leaky, "--labels", leaky / "labels.csv", "--out", tmp_path, *SIZE)
    assert status == 2, err
    assert "severe" in text and "The corners alone" in text and "What to do:" in text
    stored = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))
    assert "corners" in stored["severe"]
    assert str(leaky) not in (tmp_path / "audit.json").read_text(encoding="utf-8")
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert "data:image/png" in page and ".png</figcaption>" in page


def test_noise_ends_with_status_0(cxr, tmp_path):
    folder = _folder(tmp_path, False)
    status, text, err = cxr(
        "audit", folder, "--labels", "labels.csv", "--out", tmp_path / "out", "--no-pictures", *SIZE
    )
    assert status == 0, text + err
    assert "data:image/png" not in (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")


def test_json_goes_to_standard_output_and_resume_reuses_what_is_there(cxr, leaky, tmp_path):
    command = ["audit", leaky, "--labels", leaky / "labels.csv", "--out", tmp_path, "--json", *SIZE]
    first = json.loads(cxr(*command)[1])
    second = json.loads(cxr(*command, "--resume")[1])
    assert not any(f["reused"] for f in first["findings"])
    assert all(f["reused"] for f in second["findings"] if f["auc"])
    assert first["numbers"] == second["numbers"]
    assert not any(f["reused"] for f in json.loads(cxr(*command)[1])["findings"])


def test_a_sample_is_of_whole_patients(cxr, leaky, tmp_path):
    command = ["audit", leaky, "--labels", leaky / "labels.csv", "--out", tmp_path, "--json", *SIZE]
    facts = json.loads(cxr(*command, "--sample", 61)[1])["cohort"]
    assert facts["images"] == 62 and facts["patients"] == 31


def test_one_split_is_audited_alone(cxr, leaky, tmp_path):
    table = pd.read_csv(leaky / "labels.csv")
    patients = table["patient_id"].factorize()[0]
    table.assign(split=np.where(patients % 3 == 0, "train", "test")).to_csv(
        tmp_path / "labels.csv", index=False
    )
    command = ["audit", leaky, "--labels", tmp_path / "labels.csv", "--out", tmp_path / "out", *SIZE]
    found = json.loads(cxr(*command, "--split", "test", "--json")[1])
    assert found["cohort"]["images"] == int((patients % 3 != 0).sum())
    limits = " ".join(found["limits"])
    assert (
        "Only the images of the split 'test'" in limits and "nothing can be said of leaks between" in limits
    )
    assert not {"patients", "duplicate_splits"} & {one["name"] for one in found["findings"]}
    assert found["settings"]["only_split"] == "test"
    status, _, err = cxr(*command, "--split", "val")
    assert status == 1 and "no images of the split 'val'" in err and "there are: train, test" in err
    status, _, err = cxr("audit", leaky, "--labels", "labels.csv", "--split", "test", *SIZE)
    assert status == 1 and "no column is named" in err and "split_column=" in err
    phantom = ["audit", "--dataset", "phantom", "--set", "n=400", "--image-size", 64, "--json"]
    part = json.loads(cxr(*phantom, "--split", "train", "--out", tmp_path / "p", "--no-pictures")[1])
    assert 200 < part["cohort"]["images"] < 320


def test_values_spelt_in_two_ways_are_on_the_page(cxr, leaky, tmp_path):
    table = pd.read_csv(leaky / "labels.csv")
    scanner = np.where(np.arange(len(table)) % 2, "GE", "ge")
    table.assign(scanner=scanner).to_csv(tmp_path / "labels.csv", index=False)
    command = ["audit", leaky, "--labels", tmp_path / "labels.csv", "--out", tmp_path / "out", *SIZE]
    assert cxr(*command)[0] == 2
    page = (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    assert "differ in capitals or spaces alone" in page


def test_a_bad_file_is_named_and_left_out_when_told(cxr, tmp_path):
    folder = _folder(tmp_path, True)
    (folder / "film03.png").write_bytes(b"no image")
    (folder / "film05.png").unlink()
    command = ["audit", folder, "--labels", "labels.csv", "--out", tmp_path / "out", *SIZE]
    status, _, err = cxr(*command)
    assert status == 1
    assert "film05.png" in err and "--skip-bad" in err
    status, _, err = cxr(*command, "--skip-bad")
    assert status == 2
    assert "film03.png" in err and "film05.png" in err
    page = (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    assert "film03.png" in page


def test_a_patient_in_two_splits_is_a_finding_and_no_error(cxr, tmp_path):
    folder = _folder(tmp_path, False)
    table = pd.read_csv(folder / "labels.csv")
    table.assign(split=["train", "test"] * 45).to_csv(folder / "labels.csv", index=False)
    status, text, err = cxr("audit", folder, "--labels", "labels.csv", "--out", tmp_path / "out", *SIZE)
    assert status == 2, err
    assert "45 patients are in more than one split" in " ".join(text.split())


def test_no_patient_column_is_said_in_the_limits(cxr, tmp_path):
    folder = _folder(tmp_path, True)
    pd.read_csv(folder / "labels.csv").drop(columns="patient_id").to_csv(folder / "labels.csv", index=False)
    command = ["audit", folder, "--labels", "labels.csv", "--out", tmp_path / "out", "--json", *SIZE]
    limits = " ".join(json.loads(cxr(*command)[1])["limits"])
    assert "No patients are known" in limits and "No split was given" in limits


def test_one_class_a_missing_csv_and_no_input_end_with_status_1(cxr, leaky, tmp_path):
    table = pd.read_csv(leaky / "labels.csv").assign(label=1)
    table.to_csv(tmp_path / "ones.csv", index=False)
    status, _, err = cxr("audit", leaky, "--labels", tmp_path / "ones.csv", "--out", tmp_path / "o", *SIZE)
    assert status == 1 and "all images have the label 1" in err
    status, _, err = cxr("audit", leaky, "--labels", "no.csv", "--out", tmp_path / "o", *SIZE)
    assert status == 1 and "no.csv" in err
    status, _, err = cxr("audit", "--out", tmp_path / "o")
    assert status == 1 and "--labels" in err
    status, _, err = cxr("audit", leaky, "--labels", "labels.csv", "--dataset", "phantom")
    assert status == 1 and "--dataset phantom" in err


def test_a_known_source_is_audited_by_name(cxr, tmp_path):
    status, out, err = cxr(
        "audit", "--dataset", "phantom", "--set", "n=120", "--out", tmp_path, "--json", "--workers", 1,
        "--image-size", 64,
    )  # fmt: skip
    assert status in (0, 2), err
    assert json.loads(out)["cohort"]["images"] == 120


def test_status_2_means_a_finding_and_never_a_slip_of_the_pen(cxr, leaky):
    slips = [("--smaple", "5"), ("--sample", "many"), ("--image-size", "3"), ("--set", "image_column")]
    for slip in (*slips, ("--source", "hospitall"), ("--set", "colour=red")):
        status, _, err = cxr("audit", leaky, "--labels", "labels.csv", *slip)
        assert status == 1 and (slip[0] in err or "colour" in err), err


def test_a_sample_and_labels_that_count_as_healthy_are_said(cxr, tmp_path):
    folder = _folder(tmp_path, False)
    table = pd.read_csv(folder / "labels.csv")
    names = table["label"].map({1: "yes", 0: "no"}).mask(table.index == 4, "unsure")
    table.assign(label=names).to_csv(folder / "labels.csv", index=False)
    command = ["audit", folder, "--labels", "labels.csv", "--set", "positive=yes", "--sample", "80"]
    _, out, _ = cxr(*command, "--out", tmp_path / "out", "--json", *SIZE)
    limits = " ".join(json.loads(out)["limits"])
    assert "of 90 images" in limits and "'no'" in limits and "'unsure' (1)" in limits


# --- classifiers ---


@pytest.fixture
def corner_reader(tmp_path, monkeypatch):
    """A classifier that sees nothing but the upper left corner, as ``module:function``."""
    (tmp_path / "reader.py").write_text(
        "def corner(images):\n    return images[:, :5, :5].mean((1, 2)) / 255\n"
        "def two(images):\n    import numpy as np\n    one = corner(images)\n"
        "    return np.stack([one, 1 - one], 1)\n"
        "def nothing(images):\n    return images[:, 0, 0] * 0.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "reader:corner"


def test_a_classifier_is_run_and_what_it_follows_is_said(cxr, leaky, tmp_path, corner_reader):
    command = ["audit", leaky, "--labels", leaky / "labels.csv", "--out", tmp_path / "out", *SIZE]
    status, text, err = cxr(*command, "--model", corner_reader, "--threshold", 0.6)
    assert status == 2, err
    assert "The classifier on changed pictures" in text and "answers" in text and "The corners" in text
    stored = json.loads((tmp_path / "out" / "audit.json").read_text(encoding="utf-8"))
    assert stored["classifiers"]["reader:corner"]["auc"]["value"] == 1.0
    effects = {one["name"]: one for one in stored["interventions"]}
    assert effects["corners_black"]["auc"]["value"] == 0.5 and effects["corners_black"]["believed"]
    assert effects["frame_only"]["auc"]["value"] == 1.0 and not effects["lungs_out"]["believed"]
    assert set(effects["corners_black"]["most_changed"]) <= {f"film{i:02d}.png" for i in range(90)}
    page = (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    assert "Is the classifier safe?" in page and "The corners blackened" in page
    assert stored["classifiers"]["reader:corner"]["fed"] == {"size": 32, "range": "0-255", "channels": 1}
    still = "Shown nothing but the outer tenth, its AUC is 1.000 (1.000–1.000), still above chance"
    for said in (still, "32 × 32 pixels, greys from 0 to 255 (0-255), one channel", "about the data"):
        assert said in " ".join(text.split()) and said in page, said
    assert f"Audit of {leaky.name}, labels.csv, {stored['provenance']['date']}</h1>" in page
    assert str(leaky) not in page


def test_scores_of_several_classifiers_are_compared(cxr, leaky, tmp_path):
    rng = np.random.default_rng(0)
    table = pd.read_csv(leaky / "labels.csv").assign(
        ward=lambda t: np.where(rng.random(len(t)) < 0.5, "A", "B")
    )
    table.to_csv(leaky / "wards.csv", index=False)
    ward = (table["ward"] == "A").to_numpy(float)
    scores = {"by_ward": 0.2 + 0.6 * ward + 0.1 * rng.random(len(ward)), "by_chance": rng.random(len(ward))}
    pd.DataFrame({"image": table["image"], **scores}).to_csv(tmp_path / "scores.csv", index=False)
    command = ["audit", leaky, "--labels", leaky / "wards.csv", "--out", tmp_path / "out", "--json", *SIZE]
    found = json.loads(cxr(*command, "--scores", tmp_path / "scores.csv")[1])
    (ward_asked,) = [one for one in found["attributes"] if one["name"] == "column_ward"]
    assert ward_asked["verdict"] == "used" and ward_asked["used_by"] == ["by_ward"]
    assert ward_asked["use"]["by_ward"]["concordance"]["value"] == 1.0
    assert not ward_asked["useful"] and not ward_asked["visible"]
    assert found["worst_group"]["attribute"].startswith("by_ward, Column ward")
    assert found["interventions"] == [] and "fed" not in found["classifiers"]["by_ward"]
    page = (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    verdicts = page[page.index("Is the classifier safe?") : page.index("<table")]
    assert verdicts.count("Column ward 1.000 (1.000–1.000). The others are not ruled out.") == 1
    assert verdicts.count("Its scores were not shown to follow any of the") == 1


def test_a_reversed_classifier_is_warned_of_in_terminal_json_and_page(cxr, leaky, tmp_path, corner_reader):
    command = ["audit", leaky, "--labels", leaky / "labels.csv", "--out", tmp_path / "out", *SIZE]
    _, text, err = cxr(*command, "--model", "reader:two")
    words = " ".join(text.split())
    said = "reader:two is very probably reversed: its AUC on these images is 0.000 (0.000–0.000)"
    assert "AUC 0.000 (0.000–0.000)." in words and said in words and f"cxr: warning: {said}" in err
    taken = "its two columns are probabilities, of which the second was taken (--model-output 1)"
    stored = json.loads((tmp_path / "out" / "audit.json").read_text(encoding="utf-8"))
    page = (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    assert taken in words and taken in page and said in page
    assert stored["limits"][0].startswith(said) and "give --model-output 0" in stored["limits"][0]
    _, text, err = cxr(*command, "--model", "reader:two", "--model-output", "0")
    assert "probably reversed" not in text + err and "AUC 1.000 (1.000–1.000)." in text


def test_training_images_among_those_audited_are_told_by_split(cxr, leaky, tmp_path, schema):
    table = pd.read_csv(leaky / "labels.csv").assign(part=["train"] * 60 + ["test"] * 30)
    table.to_csv(leaky / "parts.csv", index=False)
    score = np.where(table["part"] == "train", table["label"], np.random.default_rng(2).random(len(table)))
    pd.DataFrame({"image": table["image"], "net": score}).to_csv(tmp_path / "s.csv", index=False)
    command = ["audit", leaky, "--labels", leaky / "parts.csv", "--scores", tmp_path / "s.csv", *SIZE]
    _, text, _ = cxr(*command, "--out", tmp_path / "out", "--set", "split_column=part")
    stored = json.loads((tmp_path / "out" / "audit.json").read_text(encoding="utf-8"))
    schema.validate(stored)
    found = stored["classifiers"]["net"]["by_split"]
    assert found["train"]["auc"]["value"] == 1 and found["test"]["n"] == 30
    assert any("60 of the 90 images are marked as training images" in limit for limit in stored["limits"])
    assert "train 1.000" in " ".join(text.split()) and "60 of the 90 images" in " ".join(text.split())
    _, text, _ = cxr(*command, "--out", tmp_path / "out")  # without the split it is not asked
    assert "marked as training" not in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "reader:nothing"], "gives every image the score 0"),
        (["--model", "gone.onnx"], "There is no file gone.onnx"),
        (["--model", "reader:corner", "--model-range", "0-2"], "There is no range '0-2'"),
    ],
)
def test_a_classifier_that_cannot_be_audited_is_named(cxr, leaky, tmp_path, corner_reader, options, said):
    command = ["audit", leaky, "--labels", leaky / "labels.csv", "--out", tmp_path / "out", *SIZE]
    status, _, err = cxr(*command, *options)
    assert status == 1 and said in err and "What to do:" in err


def test_scores_that_are_no_probabilities_need_a_threshold(cxr, leaky, tmp_path):
    table = pd.read_csv(leaky / "labels.csv")
    pd.DataFrame({"image": table["image"], "logit": table["label"] * 4.0 - 2}).to_csv(
        tmp_path / "s.csv", index=False
    )
    command = ["audit", leaky, "--labels", leaky / "labels.csv", "--out", tmp_path / "out", *SIZE]
    status, _, err = cxr(*command, "--scores", tmp_path / "s.csv")
    assert status == 1 and "no probabilities" in err and "--threshold" in err
    assert cxr(*command, "--scores", tmp_path / "s.csv", "--threshold", 0)[0] == 2


def test_a_strangers_page_is_not_replaced_and_nothing_is_begun(cxr, leaky, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "audit.html").write_text("precious")
    (out / "thesis.txt").write_text("mine")
    command = ["audit", leaky, "--labels", leaky / "labels.csv", "--out", out, *SIZE]
    status, _, err = cxr(*command)
    assert status == 1 and "was not written by cxr audit" in err and "--out" in err
    assert sorted(path.name for path in out.iterdir()) == ["audit.html", "thesis.txt"]
    (out / "audit.html").unlink()
    assert cxr(*command)[0] == 2 and cxr(*command)[0] == 2  # its own page is replaced
    assert (out / "thesis.txt").read_text() == "mine"


def test_the_help_shows_how_a_known_finding_is_written(cxr):
    assert "[[accepted]]" in cxr("audit", "--help")[1]
