"""The exercises on audits: wrong answers get the hint that they need, and the solutions pass."""

import pytest

CHAPTER = "09_audit_your_own_data"
P_VALUE = {
    None: "Replace the dots",
    "return (chance >= found).mean()": "Never zero",
    "return (1 + (chance >= found).sum()) / len(chance)": "count among all arrangements",
    "return (chance >= found).sum() / (1 + len(chance))": "count above the line",
    "return (1 + (chance > found).sum()) / (1 + len(chance))": "an equal AUC counts",
    "return 1 + (chance >= found).sum()": "A share",
    "return (1 + (chance <= found).sum()) / (1 + len(chance))": "The other tail",
    "return abs(found - chance.mean())": "Count the deals",
}
TURNED = {
    None: "Replace the dots",
    "return ((before >= threshold) != (after >= threshold)).sum()": "A share",
    "return abs((before >= threshold).mean() - (after >= threshold).mean())": "cancel each other",
    "return abs(before - after).mean()": "Compare calls, not scores",
    "return ((before > threshold) != (after > threshold)).mean()": "at the threshold is called ill",
    "return ((before < threshold) & (after >= threshold)).mean()": "in both directions",
    "return 1.0": "Call both",
}


@pytest.mark.parametrize(("answer", "hint"), P_VALUE.items())
def test_a_wrong_p_value_gets_its_hint(exercises, answer, hint):
    said = exercises(CHAPTER).answer(0, *[answer] if answer else [])
    assert hint in said and "Right" not in said


@pytest.mark.parametrize(("answer", "hint"), TURNED.items())
def test_a_wrong_share_of_turned_calls_gets_its_hint(exercises, answer, hint):
    said = exercises(CHAPTER).answer(1, *[answer] if answer else [])
    assert hint in said and "Right" not in said


@pytest.mark.parametrize("number", [0, 1])
def test_the_solutions_pass(exercises, number):
    said = exercises(CHAPTER, image_size=64).solve(number)
    assert "Right" in said and "Error" not in said
