"""Public data sets by name: folders in the published layout, policies, and agreement with torchxrayvision."""

import json
import shutil
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
from dicom_files import dicom
from PIL import Image

from cxrlib.cohort import SPLITS
from cxrlib.datasets import PUBLISHED, describe, load, tabular, verify
from cxrlib.errors import ConfigError, CxrWarning, DataError

SHIPPED = ("rsna", "chexpert", "padchest", "openi", "vindr")
MIMIC_STUDIES = pd.DataFrame(
    {
        "subject_id": [10000032, 10000032, 11000017, 12000021],
        "study_id": [50414267, 53189527, 50000001, 50000002],
        "Pneumonia": [np.nan, 1.0, -1.0, 0.0],
        "No Finding": [1.0, np.nan, np.nan, np.nan],
    }
)


def write(path, number, kind):
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(0, 1, 24 * 20).reshape(24, 20)
    if kind == "dicom":
        shutil.move(dicom(path.parent, np.rint(ramp * 4095).astype(np.uint16), bits=12), path)
    elif kind == "png16":
        Image.fromarray(np.rint(ramp * 65535).astype(np.uint16)).save(path, format="PNG")
    else:
        Image.fromarray(np.rint(ramp * 255).astype(np.uint8)).save(path)


@pytest.fixture
def here(tmp_path):
    return {"image_size": 16, "cache_dir": tmp_path / "cache", "workers": 1}


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*a patient of its own.*", category=CxrWarning)
        yield


def _again(read, table, root):
    return table.copy() if tabular.beside(root, "valid.csv") is None else read(root)


@pytest.fixture(autouse=True, scope="module")
def _read_once():
    """These tables do not depend on the folder, but for CheXpert's valid.csv; reading them takes seconds."""
    before = {name: PUBLISHED[name].read for name in ("padchest", "openi", "chexpert")}
    for name, read in before.items():
        object.__setattr__(PUBLISHED[name], "read", partial(_again, read, read(None)))
    yield
    for name, read in before.items():
        object.__setattr__(PUBLISHED[name], "read", read)


def some_of(name, per_value=6):
    """Some rows of a shipped table, all published values of pneumonia (or opacity) among them."""
    raw = PUBLISHED[name].read(None)
    values = raw[PUBLISHED[name].findings[0]].fillna(-9)
    views = raw["view"].fillna("?")
    return raw[raw.groupby([values, views]).cumcount() < per_value].reset_index(drop=True)


LAYOUTS = {
    "rsna": ("stage_2_train_images/{file}", "dicom"),
    "chexpert": ("CheXpert-v1.0-small/{file}", "jpg"),
    "padchest": ("{file}", "png16"),
    "openi": ("{file}", "png"),
    "vindr": ("{file}", "dicom"),
    "mimic_cxr_jpg": ("files/{file}", "jpg"),
}


@pytest.fixture
def folder(request, tmp_path):
    """A folder in the published layout, and the rows whose images it holds."""
    name = request.param
    root = tmp_path / name
    root.mkdir()
    if name == "mimic_cxr_jpg":
        write_mimic(root)
        rows = PUBLISHED[name].read(root)
    else:
        rows = some_of(name)
    pattern, kind = LAYOUTS[name]
    for number, file in enumerate(rows["file"]):
        write(root / pattern.format(file=file), number, kind)
    return name, root, rows


def write_mimic(root):
    views = ["PA", "LATERAL", "AP", "LL"]
    images = MIMIC_STUDIES.loc[MIMIC_STUDIES.index.repeat(4), ["subject_id", "study_id"]].reset_index(
        drop=True
    )
    images["dicom_id"] = [f"{number:08x}-0a0b" for number in range(len(images))]
    images["ViewPosition"] = views * 4
    images = images.assign(StudyDate=21800506, Rows=3056, Columns=2544)
    findings = [name for name in PUBLISHED["chexpert"].findings if name not in ("Pneumonia", "Effusion")]
    studies = MIMIC_STUDIES.assign(**dict.fromkeys([*findings, "Pleural Effusion"], np.nan))
    parts = images["subject_id"].map({10000032: "train", 11000017: "validate", 12000021: "test"})
    studies.to_csv(root / "mimic-cxr-2.0.0-chexpert.csv.gz", index=False)
    images.to_csv(root / "mimic-cxr-2.0.0-metadata.csv.gz", index=False)
    images[["dicom_id", "study_id", "subject_id"]].assign(split=parts).to_csv(
        root / "mimic-cxr-2.0.0-split.csv.gz", index=False
    )


everywhere = pytest.mark.parametrize("folder", LAYOUTS, indirect=True)


@everywhere
def test_the_published_layout_is_read_and_every_row_accounted_for(folder, here):
    name, root, rows = folder
    every = {"views": "all"} if "views" in PUBLISHED[name].choices else {}
    cohort = load(name, data_dir=root, **every, **here)
    left_out = rows[PUBLISHED[name].findings[0]].lt(0) if name in ("chexpert", "mimic_cxr_jpg") else False
    said = (
        rows[~left_out]
        if name in ("chexpert", "mimic_cxr_jpg")
        else rows.dropna(subset=["Pneumonia"] if "Pneumonia" in rows else [])
    )
    assert cohort.table["image_id"].tolist() == said["image_id"].tolist()
    assert cohort.info["policy"].keys() == PUBLISHED[name].choices.keys()
    assert sum(sum(row.values()) for row in cohort.info["labels"].values()) == len(PUBLISHED[name].read(root))
    assert set(cohort.table["split"]) <= set(SPLITS)
    # A ramp of grey comes out as a ramp, not black and not in a few greys, from 8, 12 and 16 bits alike.
    middle = cohort.images[:, :, 8].astype(int)
    assert (np.diff(middle[:, 1:15]) > 0).all() and middle.min() < 40 and middle.max() > 215
    checks = {check["name"]: check for check in verify(name, root, workers=1)}
    assert checks["unreadable files"]["ok"] and checks["rows by published value and class"]["found"]


@everywhere
def test_labels_and_metadata_agree_with_torchxrayvisions_own_class(folder, here):
    name, root, _ = folder
    xrv = pytest.importorskip("torchxrayvision").datasets
    images = str(root / LAYOUTS[name][0].split("{")[0])
    theirs, key, policy = {
        "rsna": lambda: (
            xrv.RSNA_Pneumonia_Dataset(images, views=["PA", "AP"], extension=".dcm"),
            "patientId",
            {},
        ),
        "chexpert": lambda: (
            xrv.CheX_Dataset(images, views=["PA", "AP", "L"], unique_patients=False),
            "Path",
            {"blank": "ignore", "views": "all"},
        ),
        "padchest": lambda: (
            xrv.PC_Dataset(images, views=["PA", "AP", "L"], unique_patients=False),
            "ImageID",
            {"views": "all"},
        ),
        "openi": lambda: (
            xrv.Openi_Dataset(images, views=["PA", "AP"], unique_patients=False),
            "imageid",
            {},
        ),
        "vindr": lambda: (xrv.VinDr_Dataset(images), "image_id", {"readers": "any"}),
        "mimic_cxr_jpg": lambda: (
            xrv.MIMIC_Dataset(
                images,
                root / "mimic-cxr-2.0.0-chexpert.csv.gz",
                root / "mimic-cxr-2.0.0-metadata.csv.gz",
                views=["PA", "AP"],
                unique_patients=False,
            ),
            "dicom_id",
            {"blank": "ignore"},
        ),
    }[name]()
    finding = PUBLISHED[name].findings[0]
    ids = theirs.csv[key].str.replace("CheXpert-v1.0-small/", "") if name == "chexpert" else theirs.csv[key]
    told = pd.Series(theirs.labels[:, list(theirs.pathologies).index(finding)], index=ids)
    ours = load(name, data_dir=root, **policy, **here).table.set_index("image_id")
    both = ours.index.intersection(told.index)
    assert len(both) >= 3
    assert (ours.loc[both, "label"] == told[both]).all()
    on_disk = told[told.index.isin(PUBLISHED[name].files(root, **policy)[0]["image_id"])]
    assert on_disk.notna().all(), "what they call unknown is left out here too"
    csv = theirs.csv.set_index(ids).loc[both]
    if name != "vindr":
        assert (csv["view"].replace("AP Supine", "AP supine") == ours.loc[both, "view"]).all()
    if name not in ("rsna", "vindr"):  # where theirs too knows patients
        ours_alike = ours.loc[both, "patient_id"].str.replace("patient", "").str.removeprefix("CXR")
        assert (csv["patientid"].str.removeprefix("CXR") == ours_alike).all()
    if "sex_male" in csv:
        assert (csv["sex_male"] == (ours.loc[both, "sex"] == "M")).all()
    if name == "chexpert":
        assert csv["age_years"].where(csv["age_years"] > 0).equals(ours.loc[both, "age"].rename("age_years"))
    if name == "rsna":
        assert (
            csv["PatientAge"].where(csv["PatientAge"] <= 110).fillna(-1) == ours.loc[both, "age"].fillna(-1)
        ).all()


@pytest.mark.parametrize(
    ("name", "images", "positive", "options"),
    [
        ("rsna", 26_684, 6_012, {}),
        ("chexpert", 223_414 - 18_770, 6_039, {"views": "all"}),
        ("chexpert", 223_414, 6_039 + 18_770, {"views": "all", "uncertain": "positive"}),
        ("chexpert", 223_414, 6_039, {"views": "all", "uncertain": "negative"}),
        ("openi", 7_470, 158, {"views": "all"}),
        ("vindr", 15_000, 380 + 167, {}),
        ("vindr", 15_000, 775 + 380 + 167, {"readers": "any"}),
        ("vindr", 15_000, 167, {"readers": "all"}),
    ],
)
def test_counts_of_the_shipped_tables(name, images, positive, options):
    table, info = PUBLISHED[name].table(None, **options)
    assert (len(table), int(table["label"].sum())) == (images, positive)
    classes = pd.DataFrame(info["labels"]).T.fillna(0).sum()
    assert classes["1"] == positive


def test_policies_of_a_finding_that_is_uncertain_silent_or_seen_by_some():
    values = pd.Series([1.0, 0.0, -1.0, np.nan, 2 / 3, 1 / 3, 0.5])
    nan = np.nan
    for policy, expected in [
        ({}, [1, 0, nan, nan, 1, 0, 0]),
        ({"uncertain": "positive", "blank": "negative"}, [1, 0, 1, 0, 1, 0, 0]),
        ({"uncertain": "negative", "readers": "any"}, [1, 0, 0, nan, 1, 1, 1]),
        ({"readers": "all"}, [1, 0, nan, nan, 0, 0, 0]),
    ]:
        np.testing.assert_array_equal(tabular.decide(values, **policy), expected)


def test_terms_match_whole_and_without_their_blanks():
    lists = pd.Series([" pneumonia, callus rib fracture", "pneumonectomy", "subcutaneous emphysema", None])
    found = tabular.read_terms(lists, PUBLISHED_TERMS, ",")
    assert found["Pneumonia"].tolist()[:3] == [1, 0, 0] and found["Fracture"].tolist()[:3] == [1, 0, 0]
    assert found["Emphysema"].tolist()[:3] == [0, 0, 0] and found.loc[3].isna().all()


PUBLISHED_TERMS = {"Pneumonia": "(atypical )?pneumonia", "Fracture": ".*fracture", "Emphysema": "emphysema"}


@pytest.mark.parametrize("folder", ["mimic_cxr_jpg"], indirect=True)
def test_mimics_published_split_and_blank_labels(folder, here):
    _, root, _ = folder
    cohort = load("mimic_cxr_jpg", data_dir=root, uncertain="negative", **here)
    assert cohort.info["published_split"] is True
    assert set(zip(cohort.table["patient_id"], cohort.table["split"], strict=True)) == {
        ("10000032", "train"), ("11000017", "val"), ("12000021", "test")
    }  # fmt: skip
    assert set(cohort.table["view"]) == {"PA", "AP"}
    assert cohort.table.groupby("study_id")["label"].max().to_dict() == {
        "50414267": 0, "53189527": 1, "50000001": 0, "50000002": 0
    }  # fmt: skip
    with pytest.raises(DataError, match=r"split\.csv\.gz is not in"):
        (root / "mimic-cxr-2.0.0-split.csv.gz").unlink()
        load("mimic_cxr_jpg", data_dir=root, **here)


@pytest.mark.parametrize("folder", ["chexpert"], indirect=True)
def test_chexperts_valid_is_validation_and_a_tenth_of_training_is_the_test(folder, here):
    _, root, _ = folder
    known = {"Sex": "Male", "Age": 50, "Frontal/Lateral": "Frontal", "AP/PA": "AP", "No Finding": 0.0}
    columns = ["Effusion" if name == "Pleural Effusion" else name for name in PUBLISHED["chexpert"].findings]
    values = dict.fromkeys(["Pleural Effusion" if name == "Effusion" else name for name in columns], 0.0)
    paths = [f"valid/patient6454{n}/study1/view1_frontal.jpg" for n in range(1, 4)]
    valid = pd.DataFrame({"Path": [f"CheXpert-v1.0-small/{path}" for path in paths], **known, **values})
    valid.to_csv(root / "CheXpert-v1.0-small" / "valid.csv", index=False)
    for path in paths:
        write(root / "CheXpert-v1.0-small" / path, 0, "jpg")
    table = load("chexpert", data_dir=root, **here).table
    assert set(table.loc[table["split"] == "val", "image_id"]) == set(paths)
    assert 0 < (table["split"] == "test").sum() < (table["split"] == "train").sum()


@pytest.mark.parametrize("folder", ["vindr"], indirect=True)
def test_vindrs_image_labels_add_the_test_and_pneumonia(folder, here):
    _, root, rows = folder
    train, test = rows["image_id"].tolist()[:3], ["t0", "t1"]
    (root / "annotations").mkdir()
    readers = pd.DataFrame({"image_id": np.repeat(train, 3), "rad_id": ["R1", "R2", "R3"] * 3})
    readers["Pneumonia"] = [1, 1, 0, 1, 0, 0, 0, 0, 0]
    readers.assign(**{"No finding": 0}).to_csv(root / "annotations/image_labels_train.csv", index=False)
    consensus = pd.DataFrame({"image_id": test, "Pneumonia": [0, 1], "No finding": [1, 0]})
    consensus.to_csv(root / "annotations/image_labels_test.csv", index=False)
    for image in test:
        write(root / f"test/{image}.dicom", 0, "dicom")
    table = load("vindr", data_dir=root, finding="Pneumonia", **here).table.set_index("image_id")
    assert table.loc[[*train, *test], "label"].tolist() == [1, 0, 0, 0, 1]
    assert set(table.loc[test, "split"]) == {"test"} and "test" not in set(table.loc[train, "split"])


@pytest.mark.parametrize("folder", ["rsna"], indirect=True)
def test_rsnas_classes_and_the_key_to_patients(folder, here):
    _, root, rows = folder
    with pytest.raises(ConfigError, match="say nothing of 'Pneumonia against normal'"):
        load("rsna", data_dir=root, finding="Pneumonia against normal", **here)
    classes = np.where(rows["Pneumonia"] == 1, "Lung Opacity", "Normal").astype(object)
    classes[np.flatnonzero(rows["Pneumonia"] == 0)[:2]] = "No Lung Opacity / Not Normal"
    table = pd.DataFrame({"patientId": rows["image_id"], "class": classes})
    table.to_csv(root / "stage_2_detailed_class_info.csv", index=False)
    key = [
        {"subset_img_id": image, "img_id": f"0000000{n // 2}_00{n % 2}.png"}
        for n, image in enumerate(rows["image_id"])
    ]
    (root / "pneumonia-challenge-dataset-mappings_2018.json").write_text(json.dumps(key))
    cohort = load("rsna", data_dir=root, finding="Pneumonia against normal", **here)
    assert len(cohort) == len(rows) - 2 and cohort.info["labels"]["blank"]["left out"] >= 2
    assert cohort.table["patient_id"].str.fullmatch(r"\d{8}").all()


def test_what_is_not_there_is_said(tmp_path, here):
    with pytest.raises(DataError, match="holds none of the images"):
        load("padchest", data_dir=tmp_path, **here)
    with pytest.raises(ConfigError, match="uncertain='maybe'"):
        load("chexpert", data_dir=tmp_path, uncertain="maybe", **here)
    with pytest.raises(ConfigError, match="no option 'uncertain'"):
        load("rsna", data_dir=tmp_path, uncertain="ignore", **here)
    with pytest.raises(ConfigError, match="say nothing of 'Gout'"):
        load("openi", data_dir=tmp_path, finding="Gout", **here)
    with pytest.raises(DataError, match="may not be shared"):
        PUBLISHED["mimic_cxr_jpg"].table(None)


def test_show_names_findings_and_policies(cxr):
    assert describe("chexpert")["policies"]["uncertain"] == ["ignore", "positive", "negative"]
    status, out, _ = cxr("data", "list", "--json")
    assert status == 0 and set(PUBLISHED) <= set(json.loads(out))
    status, out, _ = cxr("data", "show", "vindr", "--json")
    assert status == 0 and json.loads(out)["findings"][0] == "Lung Opacity"


@pytest.mark.parametrize("folder", ["chexpert"], indirect=True)
def test_policies_from_the_command_line(folder, cxr):
    _, root, _ = folder
    status, out, err = cxr(
        "data",
        "show",
        "chexpert",
        "--data-dir",
        root,
        "--image-size",
        16,
        "--json",
        "--set",
        "uncertain=positive",
    )
    assert status == 0, err
    ignored = json.loads(cxr("data", "show", "chexpert", "--data-dir", root, "--image-size", 16, "--json")[1])
    assert json.loads(out)["images"] > ignored["images"]
