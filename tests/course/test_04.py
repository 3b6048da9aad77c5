"""The exercises on error analysis: wrong answers get the hint that they need, and the solutions pass."""

import pytest

CHAPTER = "04_error_analysis"
FALSE = "wanted / (1 - wanted) * (1 - specificity)"
FREQUENT = {
    None: "Replace the dots",
    f"return {FALSE} / sensitivity": "Those are odds",
    "return specificity / (specificity + sensitivity)": "alarmed is the rest",
    "return sensitivity / (sensitivity + 1 - specificity)": "worth where half are ill",
    f"return 100 * {FALSE} / ({FALSE} + sensitivity)": "A share, please",
    "return sensitivity / (1 - specificity)": "How many healthy",
    "return (1 - specificity) / (1 - specificity + sensitivity)": "where wanted is 0.8",
    "return wanted": "as many ill as healthy",
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


@pytest.mark.parametrize(("answer", "hint"), FREQUENT.items())
def test_a_wrong_prevalence_gets_its_hint(exercises, answer, hint):
    said = exercises(CHAPTER).answer(0, *[answer] if answer else [])
    assert hint in said and "Right" not in said


@pytest.mark.parametrize(("answer", "hint"), CHEAPEST.items())
def test_a_wrong_threshold_gets_its_hint(exercises, answer, hint):
    said = exercises(CHAPTER).answer(1, *[answer] if answer else [])
    assert hint in said and "Right" not in said


@pytest.mark.parametrize("number", [0, 1])
def test_the_solutions_pass(exercises, number):
    assert "Right" in exercises(CHAPTER).solve(number)
