"""Anyone's images and CSV, and what is said when they do not fit."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrlib.cohort import split_by_patient
from cxrlib.datasets import load, verify
from cxrlib.errors import ConfigError, CxrWarning, DataError


@pytest.fixture
def own(tmp_path):
    """A folder with images of every kind, and a function that writes its CSV."""
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.jpg", "sub/c.tif", "d.png", "e.png", "f.png"):
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 20), dtype=np.uint8)).save(tmp_path / "files" / name)

    def write(separator=",", **columns):
        table = pd.DataFrame({"image": ["a.png", "b.jpg", "sub/c.tif", "d.png", "e.png", "f.png"], **columns})
        table.to_csv(tmp_path / "labels.csv", index=False, sep=separator)
        return {"data_dir": tmp_path / "files", "labels": tmp_path / "labels.csv", **here_options}

    here_options = {"image_size": 16, "cache_dir": tmp_path / "cache", "workers": 1}
    return write


PATIENTS = ["007", "7", "3", "3", "4", "5"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_folder_with_columns_of_any_name(own, separator):
    options = own(
        separator,
        diagnosis=["Pneumonia", "normal", " pneumonia", "effusion", "normal", "normal"],
        subject=PATIENTS,
        fold=["train", "Training", "valid", "VALIDATION", "test", "test"],
        projection=["PA", "AP", "PA", "PA", "AP", "PA"],
        years=[50, None, 30, 31, 70, 2],
        weight=[1, 2, 3, 4, 5, 6],
        path=list("uvwxyz"),
    )
    with pytest.warns(CxrWarning, match=r"count as healthy: 'normal' \(3\), 'effusion' \(1\)"):
        cohort = load(
            "folder",
            **options,
            label_column="diagnosis",
            positive="PNEUMONIA",
            patient_column="subject",
            split_column="fold",
            view_column="projection",
            age_column="years",
        )
    table = cohort.table
    assert cohort.labels.tolist() == [1, 0, 1, 0, 0, 0]
    assert table["patient_id"].tolist() == PATIENTS, "007 and 7 are two patients"
    assert table["split"].tolist() == ["train", "train", "val", "val", "test", "test"]
    assert table["view"].tolist() == ["PA", "AP", "PA", "PA", "AP", "PA"]
    assert table["age"].iloc[0] == 50 and np.isnan(table["age"].iloc[1])
    assert table["weight"].tolist() == [1, 2, 3, 4, 5, 6]
    assert table["csv_path"].tolist() == list("uvwxyz") and Path(table["path"].iloc[2]).is_file()
    assert (table["original_height"] == 30).all() and (table["original_width"] == 20).all()


def test_without_a_split_column_patients_are_split_by_hash(own):
    cohort = load("folder", **own(label=[0, 1, 0, 1, 0, 1], who=PATIENTS), patient_column="who")
    assert (cohort.table["split"] == split_by_patient(PATIENTS)).all()


def test_without_a_patient_column_there_is_a_warning(own):
    with pytest.warns(CxrWarning, match="No patient column is named"):
        cohort = load("folder", **own(label=[0, 1, 0, 1, 0, 1]))
    assert cohort.table["patient_id"].equals(cohort.table["image_id"])


def test_patients_and_machines_in_two_spellings_are_kept_apart_with_a_warning(own):
    options = own(label=[0, 1, 0, 1, 0, 1], subject=["P 1", "P1", "P3", "P4", "P5", "P6"],
                  scanner=["GE", "ge", "X", "X", "X", "X"])  # fmt: skip
    with pytest.warns(CxrWarning) as warned:
        cohort = load("folder", **options, patient_column="subject")
    assert cohort.table["patient_id"].nunique() == 6
    said = [str(one.message) for one in warned]
    assert any("'subject'" in one and "'P 1', 'P1'" in one for one in said)
    assert any("'scanner'" in one and "'GE', 'ge'" in one for one in said)


def quietly(own, label=(0, 1, 0, 1, 0, 1), **columns):
    """The options of a folder of which something else is wrong."""
    return own(label=list(label), who=PATIENTS, **columns) | {"patient_column": "who"}


def test_a_column_that_is_not_there_lists_those_that_are(own):
    with pytest.raises(DataError, match=r"no column 'diagnosis'\.\n.*'image', 'label', 'who'"):
        load("folder", **quietly(own), label_column="diagnosis")


def test_labels_that_are_neither_0_nor_1_are_listed(own):
    with pytest.raises(DataError, match="'label' holds 3 values that are neither 0 nor 1") as caught:
        load("folder", **quietly(own, label=["2", "yes", None, 0, 1, 1]))
    assert "b.jpg: 'yes'" in str(caught.value) and "positive=" in str(caught.value)
    with pytest.raises(DataError, match="No row of column 'label' is 'sick'") as caught:
        load("folder", **quietly(own, label=["ill"] * 5 + ["well"]), positive="sick")
    assert "'ill': 5 rows" in str(caught.value)


def test_true_and_false_are_labels(own):
    cohort = load("folder", **quietly(own, label=[True, False, True, False, True, True]))
    assert cohort.labels.tolist() == [1, 0, 1, 0, 1, 1]


def test_an_image_listed_twice(own):
    options = quietly(own)
    table = pd.read_csv(options["labels"], dtype=str)
    pd.concat([table, table.iloc[:1]]).to_csv(options["labels"], index=False)
    with pytest.raises(DataError, match=r"names 1 images more than once\.\n  - a\.png"):
        load("folder", **options)


def test_a_patient_in_two_splits(own):
    with pytest.raises(DataError, match=r"1 patients are in more than one split \(column 'who'") as caught:
        load("folder", **quietly(own, part=["train"] * 3 + ["test"] * 3), split_column="part")
    assert "3: test, train" in str(caught.value)


def test_a_split_that_is_none(own):
    with pytest.raises(DataError, match="hold") as caught:
        load("folder", **quietly(own, part=["train"] * 4 + ["fold 1"] * 2), split_column="part")
    assert "'fold 1': 2 rows" in str(caught.value)
    with pytest.raises(DataError, match="hold") as caught:
        load("folder", **quietly(own, part=["train"] * 4 + [None] * 2), split_column="part")
    assert "nan: 2 rows\nWhat to do: Use train, val, test, or leave split_column out" in str(caught.value)


def test_files_that_the_csv_lists_and_the_disk_has_not(own):
    options = quietly(own)
    (options["data_dir"] / "d.png").unlink()
    with pytest.raises(DataError, match=r"1 of the 6 images .* are not on the disk") as caught:
        load("folder", **options)
    assert str(options["data_dir"] / "d.png") in str(caught.value)
    cohort = load("folder", **options, skip_bad=True)
    assert len(cohort) == 5 and "does not exist" in cohort.info["skipped"][0]


def test_an_empty_patient_is_refused(own):
    options = own(label=[0, 1, 0, 1, 0, 1], who=["1", None, "2", " ", "3", "4"])
    with pytest.raises(DataError, match=r"Column 'who' of .* is empty in 2 rows"):
        load("folder", **options, patient_column="who")


def test_one_column_for_two_roles_is_refused(own):
    with pytest.raises(ConfigError, match="'label' is named for two things"):
        load("folder", **(quietly(own) | {"patient_column": "label"}))


def test_the_csv_itself(own, tmp_path):
    options = quietly(own)
    with pytest.raises(ConfigError, match="No CSV of labels is named"):
        load("folder", **(options | {"labels": None}))
    with pytest.raises(DataError, match=r"nowhere\.csv does not exist"):
        load("folder", **(options | {"labels": tmp_path / "nowhere.csv"}))
    for content in (b"", b"image,label,who\n", b"image,label,who\n\xff\xfe,1,2\n"):
        options["labels"].write_bytes(content)
        with pytest.raises(DataError, match=r"labels\.csv"):
            load("folder", **options)


def test_verify_of_a_folder_finds_copies_in_two_splits(own):
    options = own(label=[0, 1, 0, 1, 0, 1], who=list("123456"), part=["train"] * 3 + ["test"] * 3)
    folder = options["data_dir"]
    (folder / "e.png").write_bytes((folder / "a.png").read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checks = verify(
            "folder", folder, workers=1, labels=options["labels"], patient_column="who", split_column="part"
        )
    by_name = {check["name"]: check for check in checks}
    assert by_name["identical files in two splits"]["found"] == ["a.png", "e.png"]
    assert by_name["unreadable files"]["ok"]


def test_the_one_csv_in_the_folder_with_the_usual_columns_needs_no_naming(own):
    splits = ["train"] * 2 + ["val"] * 2 + ["test"] * 2
    given = own(",", label=[0, 1, 0, 1, 0, 1], patient_id=PATIENTS, split=splits)
    labels = given.pop("labels")
    labels.rename(given["data_dir"] / labels.name)
    cohort = load("folder", **given)
    assert cohort.table["patient_id"].tolist() == PATIENTS
    assert cohort.table["split"].tolist() == splits
    (given["data_dir"] / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="holds 2"):
        load("folder", **given)
