"""The exercises on preprocessing: wrong answers get the hint that they need, and the solutions pass."""

import pytest

CHAPTER = "02_preprocessing"
FLATNESS = {
    None: "Replace the dots",
    "return (np.abs(image - np.median(image, axis=1, keepdims=True).astype(np.uint8)) <= 6).mean(1)": "wraps",
    "return (np.abs(image.astype(int) - image.mean(axis=1, keepdims=True)) <= 6).mean(1)": "One letter must",
    "return (np.abs(image - np.median(image, axis=1, keepdims=True)) <= tolerance).sum(1)": "A share, please",
    "return (np.abs(image - np.median(image)) <= tolerance).mean()": "One number a row",
    "return np.ptp(image, axis=1) <= tolerance": "One letter must",
}
DICE = {
    None: "Replace the dots",
    "return (a & b).sum() / (a | b).sum()": "intersection over union",
    "return (a & b).sum() / (a.sum() + b.sum())": "counts twice",
    "return (a & b).sum() / b.sum()": "both masks' pixels",
    "return 2 * (a & b).sum()": "Divide by the pixels",
    "return (a == b).mean()": "Twice the pixels in both",
}


@pytest.mark.parametrize(("answer", "hint"), FLATNESS.items())
def test_a_wrong_flatness_gets_its_hint(exercises, answer, hint):
    said = exercises(CHAPTER).answer(0, *[answer] if answer else [])
    assert hint in said and "Right" not in said


@pytest.mark.parametrize(("answer", "hint"), DICE.items())
def test_a_wrong_dice_gets_its_hint(exercises, answer, hint):
    said = exercises(CHAPTER).answer(1, *[answer] if answer else [])
    assert hint in said and "Right" not in said


@pytest.mark.parametrize("number", [0, 1])
def test_the_solutions_pass(exercises, number):
    assert "Right" in exercises(CHAPTER).solve(number)
