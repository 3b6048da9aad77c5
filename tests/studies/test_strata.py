"""The strata of Kermany's test: counts, agreement and what the second machine explains."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from cxrlib.errors import DataError
from cxrlib.studies.strata import (
    ATTRIBUTES,
    agreement,
    detect,
    explain,
    first_numbers,
    numbering,
    pictured,
    read_labels,
    stratum,
)

FIGURES = Path(__file__).resolve().parents[2] / "figures" / "kermany"
PLAIN = {"letter": "small", "place": "upper", "print": "no", "tone": "normal", "age": "child",
         "arms": "not_seen", "border": "no", "device": "no"}  # fmt: skip


@pytest.fixture(scope="module")
def labels():
    return read_labels(FIGURES / "strata_labels.csv")


def test_labels_hold_every_healthy_child_of_the_test_and_100_images_twice(labels):
    healthy = labels[(labels["split"] == "test") & (labels["label"] == 0)]
    assert len(healthy) == 234
    assert (labels["second_letter"] != "").sum() == 100
    assert len(labels) >= 600 and labels["image_id"].is_unique


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop(columns="tone"), "no column 'tone'"),
        (lambda t: t.assign(age="old"), "values of 'age'"),
        (lambda t: pd.concat([t, t.head(1)]), "names an image twice"),
    ],
)
def test_a_damaged_table_is_refused_by_name(labels, tmp_path, change, words):
    change(labels).to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(DataError, match=words):
        read_labels(tmp_path / "labels.csv")


def test_agreement_is_one_between_equal_readings_and_none_between_exchanged_ones(labels):
    twice = labels[labels["second_letter"] != ""]
    equal = twice.assign(**{f"second_{name}": twice[name] for name in ATTRIBUTES})
    assert all(kappa.value == pytest.approx(1) for kappa in agreement(equal, 20).values())
    exchanged = equal.assign(second_print=twice["print"].map({"yes": "no", "no": "yes"}))
    assert agreement(exchanged, 20)["agreement.print"].value < 0


def test_agreement_is_scikit_learns_kappa(labels):
    twice = labels[labels["second_letter"] != ""]
    for name in ATTRIBUTES:
        wanted = cohen_kappa_score(twice[name], twice[f"second_{name}"])
        assert agreement(labels, 5)[f"agreement.{name}"].value == pytest.approx(wanted)


def test_each_image_is_in_one_stratum_and_the_machine_comes_first():
    changes = ({}, {"letter": "tall", "age": "adolescent"}, {"age": "adolescent", "border": "yes"},
               {"border": "yes", "age": "infant"}, {"age": "infant"})  # fmt: skip
    rows = [PLAIN | change for change in changes]
    assert stratum(pd.DataFrame(rows)).tolist() == ["child", "machine", "adolescent", "border", "infant"]


def _made(machine_wrong, others_wrong):
    """100 healthy children of validation, all right, and 100 of the test, of whom 20 are the machine's."""
    rows = [PLAIN | {"split": "val", "label": 0} for _ in range(100)]
    rows += [PLAIN | {"split": "test", "label": 0, "letter": "tall"} for _ in range(20)]
    rows += [PLAIN | {"split": "test", "label": 0} for _ in range(80)]
    rows += [PLAIN | {"split": part, "label": 1} for part in ("val", "test") for _ in range(10)]
    scores = np.r_[np.zeros(100), np.zeros(100), np.ones(20)]
    scores[100 : 100 + machine_wrong] = 1
    scores[120 : 120 + others_wrong] = 1
    table = pd.DataFrame(rows)
    return explain(table, np.arange(len(table)), np.stack([scores, scores]), replicates=200)


def test_a_fall_that_is_the_machines_alone_is_all_composition():
    found = _made(machine_wrong=20, others_wrong=0)
    assert found["healthy.machine.specificity"].value == 0
    assert found["fall.specificity"].value == pytest.approx(0.2)
    for name in ("fall.composition", "false_alarms.explained", "false_alarms.machine", "fall.mix"):
        assert found[name].value == pytest.approx(1)


def test_a_fall_that_all_strata_share_is_none_of_the_machines():
    found = _made(machine_wrong=5, others_wrong=20)
    assert found["healthy.machine.specificity"].value == found["healthy.others.specificity"].value == 0.75
    assert found["false_alarms.machine"].value == pytest.approx(0.2)
    assert found["false_alarms.explained"].value == pytest.approx(0)
    assert found["fall.composition"].value == pytest.approx(0)


def test_a_mixed_fall_is_shared_as_computed_by_hand():
    # 16 of 20 and 8 of 80 wrong: the fall is 24 points, without the machine 10.
    found = _made(machine_wrong=16, others_wrong=8)
    assert found["fall.composition"].value == pytest.approx(1 - 10 / 24)
    assert found["false_alarms.explained"].value == pytest.approx((16 - 20 * 0.1) / 24)
    assert found["fall.composition"].value + found["fall.within"].value == pytest.approx(1)


def test_the_detector_is_taught_on_training_alone():
    random = np.random.default_rng(0)
    tall = np.arange(200) % 4 == 0
    features = random.normal(size=(200, 3)) + 4 * tall[:, None]
    table = pd.DataFrame({"image_id": [f"i{i}" for i in range(200)], "split": ["train", "test"] * 100})
    table["split"] = np.where(np.arange(200) < 100, "train", "test")
    table["letter"] = np.where(tall, "tall", "small")
    found, numbers = detect(features, table["image_id"], table)
    assert (found == tall).mean() > 0.97 and numbers["detector.sensitivity"].n == 25
    exchanged = table.assign(letter=np.where(table["split"] == "test", "small", table["letter"]))
    exchanged.loc[150, "letter"] = "tall"
    assert (detect(features, table["image_id"], exchanged)[0] == found).all()


def test_the_numberings_ends_are_read_off_the_names():
    names = ["test/NORMAL/IM-0003-0001.jpeg", "train/NORMAL/IM-0007-0001.jpeg",
             "test/NORMAL/NORMAL2-IM-0011-0001.jpeg", "val/NORMAL/NORMAL2-IM-0012-0001.jpeg"]  # fmt: skip
    table = pd.DataFrame({"image_id": names, "label": 0, "split": ["test", "train", "test", "val"]})
    ends = {name: estimate.value for name, estimate in numbering(table).items()}
    assert ends == {
        "numbering.IM.test_last": 3, "numbering.IM.training_first": 7,
        "numbering.NORMAL2-IM.test_last": 11, "numbering.NORMAL2-IM.training_first": 12,
    }  # fmt: skip


def test_the_first_numbers_are_of_healthy_training_children_alone():
    names = [f"train/NORMAL/IM-{n:04d}-0001.jpeg" for n in range(200, 220)] + [
        "test/NORMAL/IM-0003-0001.jpeg"
    ]
    names += ["train/PNEUMONIA/person1_virus_6.jpeg"]
    table = pd.DataFrame(
        {"image_id": names, "label": [0] * 21 + [1], "split": ["train"] * 20 + ["test", "train"]}
    )
    assert np.flatnonzero(first_numbers(table)).tolist() == [0, 1]


def test_the_pictures_are_drawn_by_lot_from_the_labels_and_are_those_recorded(labels):
    numbers = json.loads((FIGURES / "strata_pictures.json").read_text(encoding="utf-8"))["numbers"]
    drawn = [f"answer.{Path(name).parts[0]}.{Path(name).stem}" for name in pictured(labels)]
    assert drawn == list(numbers)


def test_the_record_holds_what_the_labels_say(labels):
    numbers = json.loads((FIGURES / "strata.json").read_text(encoding="utf-8"))["numbers"]
    healthy = labels[(labels["split"] == "test") & (labels["label"] == 0)]
    tall = (healthy["letter"] == "tall").sum()
    assert numbers["healthy.machine.specificity"]["n"] == tall
    assert numbers["labelled.test.healthy.machine"]["value"] == pytest.approx(tall / len(healthy))
    assert numbers["fall.composition"]["value"] + numbers["fall.within"]["value"] == pytest.approx(1)
