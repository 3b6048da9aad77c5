"""The tables of 01_eda agree with hand counts and with what is known of NIH ChestX-ray14."""

import numpy as np
import pandas as pd
import pytest

from cxrlib.cohort import Cohort
from cxrlib.datasets import nih_tables
from cxrlib.errors import DataError
from cxrlib.evaluation import eda, eda_images


@pytest.fixture(scope="module")
def nih():
    return nih_tables.metadata()


@pytest.fixture
def small():
    return pd.DataFrame(
        {
            "patient_id": ["a", "a", "a", "b", "c", "d"],
            "view": ["AP", "AP", "PA", "PA", "PA", "AP"],
            "label": [1, 0, 0, 1, 0, 1],
            "X": [True, True, False, False, False, True],
            "Y": [True, False, False, True, False, False],
        }
    )


def test_nih_pneumonia_is_labelled_alone_on_322_images(nih):
    # Counted in the published file: grep -c ',Pneumonia,' Data_Entry_2017_v2020.csv
    assert (nih[list(nih_tables.FINDINGS)].sum(axis=1) == 1)[nih["Pneumonia"]].sum() == 322


def test_lorenz_curve_of_equal_patients_is_the_diagonal():
    curve = eda.concentration(pd.Series([2, 2, 2, 2]))
    assert np.allclose(curve["patients"], curve["images"])
    assert curve.iloc[-1].tolist() == [1.0, 1.0]


def test_share_of_leaked_test_images_agrees_with_its_expectation(nih):
    leak = eda.image_split_leakage(nih, seed=3)
    assert leak["shared"] == pytest.approx(leak["shared_expected"], abs=0.01)


def test_by_image_split_leaks_nothing_when_each_patient_has_one_image():
    table = pd.DataFrame({"patient_id": np.arange(400).astype(str), "label": np.arange(400) % 2})
    leak = eda.image_split_leakage(table)
    assert leak["shared"] == leak["shared_expected"] == 0
    assert leak["lookup_auc"] == 0.5


def test_remembering_patients_is_perfect_where_the_label_is_the_patients():
    patients = np.repeat(np.arange(50), 20)
    table = pd.DataFrame({"patient_id": patients.astype(str), "label": patients % 2})
    assert eda.image_split_leakage(table)["lookup_auc"] == 1.0


def test_prevalence_by_hand_and_wilson_of_two_in_three(small):
    table = eda.prevalence_by(small, "view", replicates=50)
    assert table["images"].tolist() == [3, 3] and table["patients"].tolist() == [2, 3]
    assert table["prevalence"].tolist() == pytest.approx([2 / 3, 1 / 3])
    # Wilson 1927 for 2 of 3 at 95%: 0.2077 to 0.9385
    assert table.loc["AP", ["wilson_low", "wilson_high"]].tolist() == pytest.approx(
        [0.2077, 0.9385], abs=1e-4
    )


def test_intervals_by_patient_are_wider_than_by_image_when_patients_repeat():
    rng = np.random.default_rng(0)
    sick = rng.random(60) < 0.4
    table = pd.DataFrame(
        {"patient_id": np.repeat(np.arange(60), 25), "label": np.repeat(sick, 25).astype(int)}
    )
    table["view"] = "PA"
    row = eda.prevalence_by(table, "view", replicates=400).iloc[0]
    assert (row["high"] - row["low"]) / (row["wilson_high"] - row["wilson_low"]) == pytest.approx(5, rel=0.2)


def test_row_order_changes_no_interval(nih):
    mixed = nih.sample(frac=1.0, random_state=1)
    ours = eda.prevalence_by(nih, "view", replicates=50)
    theirs = eda.prevalence_by(mixed, "view", replicates=50)
    pd.testing.assert_frame_equal(ours, theirs)


def test_rows_without_a_level_are_left_out(small):
    table = eda.prevalence_by(small.assign(view=["AP", None, "AP", "AP", None, "AP"]), "view", replicates=0)
    assert table["images"].tolist() == [4]


def test_pneumonia_is_more_frequent_in_ap_and_more_so_by_radiologists(nih):
    mined = eda.prevalence_ratio(nih, "view", "AP", "PA", replicates=100)
    radiologists = eda.prevalence_ratio(nih_tables.rsna_labels(), "view", "AP", "PA", replicates=100)
    assert 1.5 < mined.low < mined.value < mined.high < 2.5
    assert radiologists.low > mined.high


def test_agreement_reproduces_a_worked_kappa():
    # Cohen's kappa of the 2 x 2 table 20, 5, 10, 15 is 0.4 (Fleiss et al., and any textbook since).
    cells = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    table = pd.DataFrame(cells, columns=["mined", "expert"]).assign(patient_id=np.arange(50))
    row = eda.label_agreement(table, {"it": (["mined"], "expert")}, replicates=200).loc["it"]
    assert row["kappa"] == pytest.approx(0.4)
    assert row["ppv"] == pytest.approx(20 / 25) and row["sensitivity"] == pytest.approx(20 / 30)
    assert row["ppv_low"] < row["ppv"] < row["ppv_high"]


def test_any_of_several_mined_labels_counts(small):
    table = small.assign(expert=[True, True, False, True, False, True])
    row = eda.label_agreement(table, {"both": (["X", "Y"], "expert")}, replicates=10).loc["both"]
    assert (row["tp"], row["fp"], row["fn"], row["tn"]) == (4, 0, 0, 2)


def test_columns_that_give_the_label_away_are_not_metadata(nih):
    table = nih.assign(split="train", subtype="viral", constant=True, marker=nih["view"] == "AP")
    columns = eda.metadata_columns(table)
    assert {"view", "age", "sex", "follow_up", "marker"} <= set(columns)
    assert not {"label", "split", "subtype", "Pneumonia", "no_finding", "constant", "image_id"} & set(columns)


def _cohort(images, labels):
    ids = [str(i) for i in range(len(labels))]
    table = pd.DataFrame({"image_id": ids, "patient_id": ids, "label": labels, "split": "train"})
    return Cohort(images, table)


def test_class_means_differ_where_the_lesion_is_and_nowhere_else():
    rng = np.random.default_rng(0)
    images = rng.integers(90, 110, (200, 16, 16)).astype(np.uint8)
    labels = np.arange(200) % 2
    images[labels == 1, 4:8, 4:8] += 50
    without, with_label, effect = eda_images.class_means(_cohort(images, labels))
    assert (with_label - without)[4:8, 4:8].mean() == pytest.approx(50, abs=1)
    assert effect[5, 5] > 5 and abs(effect[12, 12]) < 0.6


def test_class_means_of_one_class_is_an_error():
    with pytest.raises(DataError, match="no image with label 1"):
        eda_images.class_means(_cohort(np.zeros((3, 4, 4), np.uint8), [0, 0, 0]))


def test_border_of_ten_by_ten_is_36_pixels():
    assert eda_images.border((10, 10)).sum() == 36
