"""The NIH tables say what NIH, Google and RSNA published."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from cxrlib.datasets import nih_tables
from cxrlib.errors import DataError


@pytest.fixture(scope="module")
def table():
    return nih_tables.metadata()


def test_counts_are_the_published_ones(table):
    assert len(table) == 112_120
    assert table["image_id"].is_unique
    assert table["patient_id"].nunique() == 30_805
    assert table["label"].sum() == 1_431
    assert table["no_finding"].sum() == 60_361


def test_finding_counts_agree_with_the_paper_on_the_whole_dataset(table):
    # Wang et al. 2017, the 14-finding release (readme of the NIH download): 11,559; 2,776; 13,317; 227.
    counts = table[["Atelectasis", "Cardiomegaly", "Effusion", "Hernia"]].sum()
    assert counts.tolist() == [11_559, 2_776, 13_317, 227]


def test_every_image_has_findings_or_no_finding_and_never_both(table):
    any_finding = table[list(nih_tables.FINDINGS)].any(axis=1)
    assert (any_finding != table["no_finding"]).all()


def test_patient_is_the_beginning_of_the_file_name(table):
    assert (table["image_id"].str[:8] == table["patient_id"]).all()


def test_a_patient_has_one_sex_and_follow_ups_count_up_from_zero(table):
    assert (table.groupby("patient_id")["sex"].nunique() == 1).all()
    per_patient = table.groupby("patient_id")["follow_up"]
    assert (per_patient.max() + 1 == per_patient.size()).all()


def test_first_release_ages_above_110_become_missing_and_keep_their_record(tmp_path):
    header = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n"
    )
    rows = [
        f"0000000{i}_000.png,Pneumonia,0,{i},{age},M,PA,2500,2048,0.168,0.168\n"
        for i, age in enumerate(["058Y", "411", "006M", "014D", "0"])
    ]
    path = tmp_path / "Data_Entry_2017.csv"
    path.write_text(header + "".join(rows))
    part = nih_tables.metadata(path, check=False)
    assert part["age"].iloc[[0, 2, 3, 4]].tolist() == pytest.approx([58, 0.5, 14 / 365.25, 0])
    assert np.isnan(part["age"].iloc[1]) and part["age_recorded"].iloc[1] == 411
    with pytest.raises(DataError, match="images: 5, published 112,120"):
        nih_tables.metadata(path)


def test_a_table_without_a_column_or_with_an_unknown_finding_is_refused(tmp_path, table):
    path = tmp_path / "other.csv"
    path.write_text("Image Index,Finding Labels\n00000001_000.png,Pneumonia\n")
    with pytest.raises(DataError, match="'Patient ID'"):
        nih_tables.metadata(path, check=False)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read"):
        nih_tables.metadata(path, check=False)


def test_boxes_lie_in_the_image_and_their_finding_is_among_the_images_labels(table):
    drawn = nih_tables.boxes()
    assert len(drawn) == 984 and drawn["image_id"].nunique() == 880
    assert (drawn["finding"] == "Pneumonia").sum() == 120
    assert (drawn["x"] + drawn["w"]).max() <= 1024 and (drawn["y"] + drawn["h"]).max() <= 1024
    findings = table.set_index("image_id")["findings"].reindex(drawn["image_id"])
    assert all(finding in text.split("|") for finding, text in zip(drawn["finding"], findings, strict=True))


def test_expert_labels_have_the_sizes_and_patients_of_the_publication(table):
    # Majkowska et al. 2020: 2,414 validation images, 1,962 test images of ChestX-ray14.
    expert = nih_tables.expert_labels()
    assert expert["expert_set"].value_counts().to_dict() == {"val": 2_414, "test": 1_962}
    assert expert["image_id"].is_unique and expert["image_id"].isin(table["image_id"]).all()
    by_set = expert.groupby("patient_id")["expert_set"].nunique()
    assert (by_set == 1).all()
    assert expert["age"].isna().sum() == 1  # 00027989_000.png is 155 years old in the first release


def test_rsna_labels_have_the_challenges_size_and_prevalence():
    # Shih et al. 2019 and the challenge page: 26,684 images, 6,012 with opacities, 9,555 boxes.
    rsna = nih_tables.rsna_labels()
    assert len(rsna) == 26_684 and rsna["label"].sum() == 6_012 and rsna["boxes"].sum() == 9_555
    assert ((rsna["boxes"] > 0) == (rsna["label"] == 1)).all()


def test_official_lists_are_read_when_both_are_there(tmp_path):
    assert nih_tables.official_split(tmp_path) is None
    (tmp_path / "test_list.txt").write_text("00000003_000.png\n")
    with pytest.raises(
        DataError, match=r"counterpart.*\n.*Put both train_val_list\.txt and test_list\.txt in the"
    ):
        nih_tables.official_split(tmp_path)
    (tmp_path / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png")
    split = nih_tables.official_split(tmp_path)
    assert (split.name, split.index.name) == ("split", "image_id")
    assert split.to_dict() == {
        "00000001_000.png": "train_val",
        "00000001_001.png": "train_val",
        "00000003_000.png": "test",
    }
    (tmp_path / "test_list.txt").write_text("00000001_000.png\n")
    with pytest.raises(DataError, match="twice"):
        nih_tables.official_split(tmp_path)


def test_reading_the_tables_imports_neither_torch_nor_torchxrayvision():
    code = (
        "import sys; from cxrlib.datasets import nih_tables; nih_tables.boxes(); "
        "print([m for m in ('torch', 'torchxrayvision') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_ages_that_are_no_ages_are_missing():
    assert nih_tables.parse_ages(pd.Series(["", "abc", "12Q"])).isna().all()
