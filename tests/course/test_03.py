"""The exercises on training: wrong answers get the hint that they need, and the solutions pass."""

import pytest

CHAPTER = "03_training"
SPECIFICITY = {
    None: "Replace the dots",
    "return (probabilities[labels == 0] <= threshold).mean()": "at the threshold is called ill",
    "return ((probabilities < threshold) & (labels == 0)).mean()": "Divide by the healthy images",
    "return ((probabilities < threshold) & (labels == 0)).sum()": "A share, please",
    "return (probabilities[labels == 1] >= threshold).mean() / 4": "Count the healthy that lie below",
}
WEIGHT = {
    None: "Replace the dots",
    "(train.labels == 1).sum() / (train.labels == 0).sum()": "The other way up",
    "(train.labels == 0).sum() / len(train)": "Healthy images over ill images",
}


@pytest.mark.parametrize(("answer", "hint"), SPECIFICITY.items())
def test_a_wrong_specificity_gets_its_hint(exercises, answer, hint):
    said = exercises(CHAPTER).answer(0, *[answer] if answer else [])
    assert hint in said and "Right" not in said


@pytest.mark.parametrize(("answer", "hint"), WEIGHT.items())
def test_a_wrong_weight_gets_its_hint(exercises, answer, hint):
    said = exercises(CHAPTER).answer(1, *[answer] if answer else [])
    assert hint in said and "Right" not in said


@pytest.mark.parametrize("number", [0, 1])
def test_the_solutions_pass(exercises, number):
    assert "Right" in exercises(CHAPTER).solve(number)
