"""The exercises on overfitting: wrong answers get the hint that they need, and the solutions pass."""

import pytest

CHAPTER = "06_overfitting"
STOP = {
    None: "Replace the dots",
    "best = int(np.argmin(val_losses)) + 1\n    return best, best": "cannot know the 0.3",
    "return 6, 3": "Count epochs from 1",
    "return 8, 4": "do not run the eighth",
    "return 7, 7": "lowest loss so far",
    "return 5, 4": "does not use up a patience",
    "return 7, 4": "If the loss falls to the end",
    "return val_losses.index(min(val_losses[:-1])), patience": "start counting again",
}
ACCURACY = {
    None: "Replace the dots",
    "return (sensitivity + specificity) / 2": "weigh them",
    "return (sensitivity * healthy + specificity * ill) / (healthy + ill)": "The other way round",
    "return sensitivity * ill + specificity * healthy": "A share, please",
    "return sensitivity * ill / (healthy + ill)": "Right answers among the ill",
}


@pytest.mark.parametrize(("answer", "hint"), STOP.items())
def test_a_wrong_rule_for_stopping_gets_its_hint(exercises, answer, hint):
    said = exercises(CHAPTER).answer(0, *[answer] if answer else [])
    assert hint in said and "Right." not in said


@pytest.mark.parametrize(("answer", "hint"), ACCURACY.items())
def test_a_wrong_accuracy_gets_its_hint(exercises, answer, hint):
    said = exercises(CHAPTER).answer(1, *[answer] if answer else [])
    assert hint in said and "Right." not in said


@pytest.mark.parametrize("number", [0, 1])
def test_the_solutions_pass(exercises, number):
    assert "Right." in exercises(CHAPTER).solve(number)
