"""The exercises on error analysis: wrong answers get the hint that they need, and the solutions pass."""

import pytest

CHAPTER = "04_error_analysis"
HITS = "sensitivity * prevalence"
PPV = {
    None: "Replace the dots",
    "return sensitivity / (sensitivity + 1 - specificity)": "Weigh the ill",
    f"return {HITS} / ({HITS} + specificity * (1 - prevalence))": "alarmed is the rest",
    f"return {HITS}": "Divide by all alarms",
    "return 100 * 0.09 / 0.27": "A share, please",
    "return 0.72 / (0.72 + 0.01)": "all-clear",
    "return prevalence": "The ill who are alarmed",
}
MISSED, ALARMED = "(p[labels == 1] < c).sum()", "(p[labels == 0] >= c).sum()"
CHEAPEST = {
    None: "Replace the dots",
    f"return min(p, key=lambda c: {MISSED} + {ALARMED})": "ten times",
    f"return int(np.argmin([10 * {MISSED} + {ALARMED} for c in p]))": "not its place",
    f"return min(10 * {MISSED} + {ALARMED} for c in p)": "That is the cost",
    f"return min(p, key=lambda c: {MISSED})": "Everybody is alarmed",
    "return min(p, key=lambda c: 10 * (p[labels == 1] <= c).sum() + (p[labels == 0] > c).sum())": "p >= c",
    "return p.max()": "Try every p",
}


@pytest.mark.parametrize(("answer", "hint"), PPV.items())
def test_a_wrong_predictive_value_gets_its_hint(exercises, answer, hint):
    said = exercises(CHAPTER).answer(0, *[answer] if answer else [])
    assert hint in said and "Right" not in said


@pytest.mark.parametrize(("answer", "hint"), CHEAPEST.items())
def test_a_wrong_threshold_gets_its_hint(exercises, answer, hint):
    said = exercises(CHAPTER).answer(1, *[answer] if answer else [])
    assert hint in said and "Right" not in said


@pytest.mark.parametrize("number", [0, 1])
def test_the_solutions_pass(exercises, number):
    assert "Right" in exercises(CHAPTER).solve(number)
