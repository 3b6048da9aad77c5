"""The exercises on spurious correlations: wrong answers get the hint they need, the solutions pass."""

import pytest

CHAPTER = "07_spurious_correlations"
BORDER = {
    None: "Replace the dots",
    "images[present, :width] = 0; return images": "You painted into the images that were given",
    "return images[present] * 0": "Return all images",
    "return images * 0": "Only where present is true",
    "made = images.copy(); made[present] = 0; return made": "The inside must stay",
    "made = images.copy(); made[present, :width] = 0; return made": "All four sides",
}
ALARMS = "(machine.n * (1 - machine.value) + others.n * (1 - others.value))"
EXPLAINED = {
    None: "Replace the dots",
    f"machine.n * (1 - machine.value) / {ALARMS}": "leave those out",
    "machine.n / (machine.n + others.n)": "not of the false alarms",
    "machine.n * (others.value - machine.value)": "divide it by all false alarms",
    "others.value - machine.value": "a difference of rates",
    "machine.value * others.value": "one minus specificity",
}
LETTER = {
    (): "Replace the dots",
    ("0.95 ** 2", "0.05 ** 2"): "a tie counts one half",
    ("1", "0"): "One ill child in twenty",
    ("0.95", "0.5"): "The first is right",
    ("0.7", "0.3"): "Add half of the ties",
}


@pytest.mark.parametrize(("answer", "hint"), BORDER.items())
def test_a_wrong_border_gets_its_hint(exercises, answer, hint):
    assert hint in exercises(CHAPTER).answer(0, *[answer] if answer else [])


@pytest.mark.parametrize(("answer", "hint"), EXPLAINED.items())
def test_a_wrong_share_of_the_false_alarms_gets_its_hint(exercises, answer, hint):
    assert hint in exercises(CHAPTER).answer(1, *[answer] if answer else [])


@pytest.mark.parametrize(("answers", "hint"), LETTER.items())
def test_a_wrong_auc_of_the_letter_alone_gets_its_hint(exercises, answers, hint):
    assert hint in exercises(CHAPTER).answer(2, *answers)


@pytest.mark.parametrize("number", range(3))
def test_the_solution_passes(exercises, number):
    assert "Right." in exercises(CHAPTER).solve(number)


def test_the_share_worked_out_by_hand_is_the_recorded_one(exercises):
    shown, recorded = exercises(CHAPTER).solve(1).split("\n")[1].split(" and recorded: ")
    assert float(shown) == pytest.approx(float(recorded.split(" (")[0]), abs=0.001)
