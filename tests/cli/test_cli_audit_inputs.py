"""``cxr audit`` for pipelines: several findings, embeddings, accepted findings, JUnit XML, the schema."""

import json
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from PIL import Image

SIZE = ["--image-size", "32", "--workers", "1"]


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Noise, two images a patient: a white square in a corner of the ill, in every third a bright edge."""
    folder = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(90):
        pixels = rng.integers(30, 200, (40, 40)).astype(np.uint8)
        ill, edge = (i // 2) % 2, int((i // 2) % 3 == 0)
        pixels[1:6, 1:6] = 255 if ill else pixels[1:6, 1:6]
        pixels[-4:, :] = 255 if edge else pixels[-4:, :]
        Image.fromarray(pixels).save(folder / f"film{i:02d}.png")
        rows.append({"image": f"film{i:02d}.png", "label": ill, "edge": edge, "patient_id": f"p{i // 2}"})
    table = pd.DataFrame(rows).assign(rare=lambda t: (t.index < 4).astype(int))
    table[["image", "label", "patient_id"]].to_csv(folder / "labels.csv", index=False)
    table.rename(columns={"label": "corner"}).to_csv(folder / "columns.csv", index=False)
    table.loc[:9, "edge"] = np.nan
    table.rename(columns={"label": "corner"}).to_csv(folder / "blank.csv", index=False)
    cells = ["|".join(n for n, v in (("Corner", a), ("Bright Edge", b)) if v) or "None"
             for a, b in zip(table["label"], (table.index // 2) % 3 == 0, strict=True)]  # fmt: skip
    table.assign(label=cells)[["image", "label", "patient_id"]].to_csv(folder / "cells.csv", index=False)
    return folder


def _audit(cxr, films, out, labels="labels.csv", *options):
    status, text, err = cxr("audit", films, "--labels", films / labels, "--out", out, *options, *SIZE)
    path = out / "audit.json"
    return status, text, err, json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def test_columns_are_audited_as_findings_and_a_rare_one_is_left_out_by_name(cxr, films, tmp_path, schema):
    junit = tmp_path / "junit.xml"
    status, text, err, found = _audit(
        cxr, films, tmp_path, "columns.csv", "--findings", "corner,edge,rare", "--junit", junit
    )
    assert status == 2, err
    schema.validate(found)
    assert [one["finding"] for one in found["audits"]] == ["corner", "edge"]
    assert "corners" in found["severe"]["corner"] and "frame" in found["severe"]["edge"]
    assert found["limits"] == [
        "Finding 'rare' was not audited: 4 images have it and 86 have not; 20 of each are needed."
    ]
    assert "was not audited" in text and "corner" in text
    # No finding is a column of another's audit: it is the label in other words, or another label.
    names = {one["name"] for each in found["audits"] for one in each["audit"]["findings"]}
    assert not names & {"column_corner", "column_edge", "column_rare"}
    for one in found["audits"]:
        alone = json.loads((tmp_path / one["folder"] / "audit.json").read_text(encoding="utf-8"))
        schema.validate(alone)
        assert alone["findings"] == one["audit"]["findings"]
    assert [suite.get("name") for suite in ET.parse(junit).getroot()] == ["corner", "edge"]


def test_findings_in_one_cell_are_the_same_as_in_columns(cxr, films, tmp_path):
    *_, cells = _audit(cxr, films, tmp_path / "a", "cells.csv", "--findings", "Corner,bright edge")
    *_, columns = _audit(
        cxr, films, tmp_path / "b", "columns.csv", "--findings", "corner,edge", "--set", "label_column=rare"
    )
    for a, b in zip(cells["audits"], columns["audits"], strict=True):
        kept = [{one["name"]: one["auc"] for one in each["audit"]["findings"]} for each in (a, b)]
        assert kept[0] == kept[1]


def test_blank_labels_leave_images_out_of_one_finding_alone(cxr, films, tmp_path):
    options = ("--findings", "corner,edge", "--set", "uncertain=ignore", "--no-pictures")
    status, _, err, found = _audit(cxr, films, tmp_path, "blank.csv", *options)
    assert status == 2, err
    assert [one["audit"]["cohort"]["images"] for one in found["audits"]] == [90, 80]
    left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["audit.html"] * 3 + ["audit.json"] * 3  # no thumbnails


def test_scores_are_asked_about_the_finding_of_their_name(cxr, films, tmp_path, schema):
    table = pd.read_csv(films / "columns.csv")
    rng = np.random.default_rng(0)
    scores = {"Corner": rng.random(90), "edge": rng.random(90), "both": rng.random(90)}
    pd.DataFrame({"image": table["image"], **scores}).to_csv(tmp_path / "s.csv", index=False)
    options = ("--findings", "corner,edge", "--scores", tmp_path / "s.csv")
    *_, found = _audit(cxr, films, tmp_path / "o", "columns.csv", *options)
    schema.validate(found)
    assert [set(one["audit"]["classifiers"]) for one in found["audits"]] == [
        {"Corner", "both"},
        {"edge", "both"},
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--findings", "corner,corner"), "names a finding twice"),
        (("--findings", "corner,gone"), "'gone'"),
        (("--findings", "corner,gone", "--set", "positive=1"), "'gone' for --findings"),
        (("--findings", "rare"), "'rare' was not audited"),
        (("--findings", "corner", "--model", "a.onnx"), "--model gives one score"),
    ],
)
def test_findings_that_cannot_be_audited_are_named(cxr, films, tmp_path, options, said):
    status, _, err, _ = _audit(cxr, films, tmp_path, "columns.csv", *options)
    assert status == 1 and said in err, err


def test_a_known_finding_is_accepted_until_it_is_worse(cxr, films, tmp_path, schema):
    *_, before = _audit(cxr, films, tmp_path)
    entries = [
        f'[[accepted]]\nprobe = "{name}"\nreason = "a <b>stamp</b>"\nceiling = 1.0\n'
        for name in before["severe"]
    ]
    accept = tmp_path / "known.toml"
    accept.write_text("".join(entries))
    junit = tmp_path / "junit.xml"
    status, text, err, found = _audit(
        cxr, films, tmp_path, "labels.csv", "--accept", accept, "--junit", junit, "--resume"
    )
    assert status == 0, text + err
    schema.validate(found)
    assert found["severe"] == [] and "accepted" in text and "a <b>stamp</b>" in " ".join(text.split())
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert "a &lt;b&gt;stamp" in page and "known and accepted" in page
    root = ET.parse(junit).getroot()
    assert (root.get("failures"), root.get("skipped")) == ("0", str(len(entries)))
    accept.write_text("".join(entries).replace("ceiling = 1.0", "ceiling = 0.6"))
    status, text, _, found = _audit(cxr, films, tmp_path, "labels.csv", "--accept", accept, "--resume")
    assert status == 2 and found["severe"] == before["severe"] and "worse since" in text
    assert ET.parse(junit).getroot().get("failures") == "0"  # of the run before: nothing asked for it now


def test_audit_toml_beside_the_labels_is_found_and_its_slips_are_named(cxr, films, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_bytes((films / "labels.csv").read_bytes())
    (tmp_path / "audit.toml").write_text('[[accepted]]\nprobe = "corners"\nceiling = 0.9\n')
    status, _, err = cxr("audit", films, "--labels", labels, "--out", tmp_path / "o", *SIZE)
    assert status == 1 and "audit.toml" in err and "'reason' is missing" in err


def test_embeddings_stand_for_the_whole_image(cxr, films, tmp_path, schema):
    table = pd.read_csv(films / "labels.csv")
    rng = np.random.default_rng(0)
    values = rng.normal(size=(90, 5)) + 3 * table["label"].to_numpy()[:, None]
    np.save(tmp_path / "e.npy", values)
    status, text, err, found = _audit(cxr, films, tmp_path, "labels.csv", "--embeddings", tmp_path / "e.npy")
    assert status == 2, err
    schema.validate(found)
    numbers = found["numbers"]
    assert numbers["whole.auc"]["value"] > 0.99 and found["cohort"]["embeddings"] == "e.npy"
    assert "row 1 is film00.png, row 90 is film89.png" in text
    assert "what e.npy holds of it" in (tmp_path / "audit.html").read_text(encoding="utf-8")
    # The same by name, in another order, on other images and with a file that cannot be read.
    mixed = pd.DataFrame(values).assign(image=table["image"]).sample(frac=1, random_state=1)
    mixed.to_csv(tmp_path / "e.csv", index=False)
    *_, named = _audit(cxr, films, tmp_path / "named", "labels.csv", "--embeddings", tmp_path / "e.csv")
    assert named["numbers"] == numbers
    np.save(tmp_path / "e.npy", rng.normal(size=(90, 5)))
    options = ("--embeddings", tmp_path / "e.npy", "--resume")
    *_, other = _audit(cxr, films, tmp_path, "labels.csv", *options)
    assert other["numbers"]["whole.auc"]["value"] < 0.8  # nothing was taken over from the other embeddings


def test_embeddings_of_another_count_end_with_status_1(cxr, films, tmp_path):
    np.save(tmp_path / "e.npy", np.zeros((89, 5)))
    status, _, err, _ = _audit(cxr, films, tmp_path, "labels.csv", "--embeddings", tmp_path / "e.npy")
    assert status == 1 and "89 rows" in err and "lists 90 images" in err


def test_where_nothing_is_used_or_exploitable_that_is_said(cxr, films, tmp_path):
    table = pd.read_csv(films / "labels.csv")
    rng = np.random.default_rng(3)
    table.assign(label=rng.permutation(table["label"]), patient_id=range(90)).to_csv(
        tmp_path / "dealt.csv", index=False
    )
    command = ["audit", films, "--labels", tmp_path / "dealt.csv", "--out", tmp_path / "o", *SIZE]
    _, text, err = cxr(*command)
    assert "Nothing was found to be exploitable." in text, text + err
    assert "With the label held fixed" not in text


def test_help_says_in_two_lines_how_embeddings_are_made(cxr):
    _, text, _ = cxr("audit", "--help")
    lines = [line.strip() for line in text.splitlines()]
    made = lines.index('np.save("features.npy", x)')
    assert lines[made - 1].startswith("x = np.stack(") and lines[made - 1].endswith(".image)))")


def test_a_column_called_as_the_audit_calls_its_labels_is_refused(cxr, films, tmp_path):
    table = pd.read_csv(films / "columns.csv").assign(**{"finding 1": 7})
    table.to_csv(tmp_path / "own.csv", index=False)
    status, _, err, _ = _audit(cxr, films, tmp_path, tmp_path / "own.csv", "--findings", "corner,edge")
    assert status == 1 and "'finding 1'" in err and "Rename the column" in err


def test_without_pictures_only_the_audits_own_work_goes(cxr, films, tmp_path):
    kept = tmp_path / "src" / "work" / "mine.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("mine")
    _audit(cxr, films, tmp_path, "columns.csv", "--findings", "corner,edge", "--no-pictures")
    assert kept.read_text() == "mine" and not list(tmp_path.glob("*-corner/work"))
