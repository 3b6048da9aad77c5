"""How good the classifiers of an audit are, and what is said where they are not."""

import numpy as np
import pandas as pd
import pytest

from cxrlib.audit.models import Classifiers, doubtful, learnt_from, performance, thresholds
from cxrlib.cohort import Cohort
from cxrlib.errors import ConfigError
from cxrlib.evaluation.metrics import Estimate, auc

N = 200


@pytest.fixture(scope="module")
def cohort():
    labels = np.arange(N) % 2
    table = pd.DataFrame({
        "image_id": [f"i{i}" for i in range(N)], "patient_id": [f"p{i}" for i in range(N)], "label": labels,
        "split": np.where(np.arange(N) < 120, "train", np.where(np.arange(N) < 190, "test", "val")),
    })  # fmt: skip
    return Cohort(np.zeros((N, 8, 8), np.uint8), table)


def measured(cohort, scores, **options):
    table = pd.DataFrame(scores)
    return performance(Classifiers(table, thresholds(table, None)), cohort, **options)


def test_the_auc_is_given_of_each_split(cohort):
    rng = np.random.default_rng(0)
    learnt = (cohort.table["split"] == "train").to_numpy()
    score = np.where(learnt, 0.9 * cohort.labels, rng.random(N))
    found = measured(cohort, {"net": score}, has_split=True)["net"]["by_split"]
    assert list(found) == ["train", "val", "test"] and [one["n"] for one in found.values()] == [120, 10, 70]
    assert found["train"]["auc"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 120}
    test = (cohort.table["split"] == "test").to_numpy()
    assert found["test"]["auc"]["value"] == pytest.approx(auc(cohort.labels[test], score[test]))
    assert found["test"]["auc"]["low"] < found["test"]["auc"]["value"] < found["test"]["auc"]["high"]
    assert set(found["val"]["auc"]) == {"value", "n"}  # ten images: no interval
    assert "by_split" not in measured(cohort, {"net": score})["net"]


def test_a_split_of_one_class_has_no_auc(cohort):
    ill = cohort.with_columns(split=np.where(cohort.labels == 1, "train", "test"))
    found = measured(ill, {"net": np.linspace(0, 1, N)}, has_split=True)["net"]["by_split"]
    assert found == {"train": {"n": 100, "auc": None}, "test": {"n": 100, "auc": None}}


def test_a_reversed_classifier_and_one_that_tells_nothing_are_named(cohort):
    rng = np.random.default_rng(0)
    good = np.clip(0.3 + 0.3 * cohort.labels + rng.normal(0, 0.1, N), 0, 1)
    found = measured(cohort, {"good": good, "turned": 1 - good, "blind": rng.random(N)})
    said = doubtful(found)
    assert set(said) == {"turned", "blind"}
    assert "turned is very probably reversed" in said["turned"] and "1 − score" in said["turned"]
    assert "blind was not shown to tell the label" in said["blind"] and "--scores" in said["blind"]
    size = {"size": 8, "range": "0-1", "channels": 1}
    run = found["turned"] | {"fed": size | {"taken": {"column": 1, "of": 2, "how": "probability"}}}
    assert "give --model-output 0;" in doubtful({"turned": run})["turned"]
    assert "--model-size, --model-range" in doubtful({"blind": found["blind"] | {"fed": size}})["blind"]


def test_one_that_a_light_probe_outdoes_is_named_and_one_that_it_does_not_is_not(cohort):
    rng = np.random.default_rng(0)
    found = measured(cohort, {"weak": 0.2 * cohort.labels + 0.8 * rng.random(N)})
    assert doubtful(found) == doubtful(found, Estimate(0.6, 0.5, 0.7)) == {}
    said = doubtful(found, Estimate(0.98, 0.96, 0.99))["weak"]
    assert "light probe of the whole image, 0.980 (0.960–0.990)" in said and "its scores." in said


def test_training_images_are_counted(cohort):
    assert learnt_from(cohort)[0].startswith("120 of the 200 images are marked as training images.")
    assert learnt_from(cohort.with_columns(split="test")) == []


def test_scores_that_are_no_probabilities_name_threshold_and_output():
    with pytest.raises(ConfigError, match=r"(?s)--threshold: 0 for logits.*--model-output"):
        thresholds(pd.DataFrame({"net": [-1.0, 2.0]}), None)
