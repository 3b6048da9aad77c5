"""The exercise on the data: wrong answers get the hint that they need, and the solution passes."""

import numpy as np
import pytest

from cxrlib.evaluation import auc

CHAPTER = "01_eda"
PPV = {
    None: "Replace the dots",
    "return sensitivity": "That is the sensitivity",
    "return sensitivity / (sensitivity + 1 - specificity)": "Weigh both by how frequent they are",
    "return sensitivity * prevalence / (sensitivity * prevalence + specificity * (1 - prevalence))": (
        "one minus the specificity"
    ),
    "return sensitivity * prevalence": "Divide by all images that have the label",
    "return prevalence": "True labels over all labels",
}


@pytest.mark.parametrize(("answer", "hint"), PPV.items())
def test_a_wrong_ppv_gets_its_hint(exercises, answer, hint):
    said = exercises(CHAPTER).answer(0, *[answer] if answer else [])
    assert hint in said and "Right" not in said


def test_the_solution_passes_and_gives_the_measured_ppv_back(exercises):
    said = exercises(CHAPTER).solve(0)
    assert "Right" in said and "[0.776, 0.282, 0.034]" in said


def test_what_the_learner_writes_out_is_right(exercises):
    space = {"np": np}
    for cell in exercises(CHAPTER).cells:
        if cell["source"].startswith("def ") and "exercise" not in cell["metadata"].get("tags", ()):
            exec(cell["source"].split("\n\n")[0], space)
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 300), rng.integers(0, 9, 300)
    assert space["auc_by_hand"](labels, scores) == pytest.approx(auc(labels, scores))
    same = space["bootstrap_by_patient"](np.ones(300), np.arange(300) // 3, 50, rng)
    assert same.tolist() == [1, 1]
