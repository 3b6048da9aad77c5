"""The exercises on heat maps: wrong answers get the hint that they need, and the solutions pass."""

import pytest

CHAPTER = "05_heat_maps"
FLAT = "flat, inside = heat.reshape(len(heat), -1), mask.reshape(len(mask), -1)"
POINTING = {
    None: "Replace the dots",
    "return float(mask.ravel()[heat.argmax()])": "image by image",
    f"{FLAT}\n    return inside[range(len(heat)), flat.argmax(1)].sum()": "A share, please",
    "return ((heat * mask).sum((1, 2)) / heat.sum((1, 2))).mean()": "share of the heat",
    f"{FLAT}\n    return inside[range(len(heat)), flat.argmin(1)].mean()": "argmax of each flattened map",
}
PAINT = "painted = image.copy()\n    painted[row : row + side, column : column + side] = grey\n    "
LOGITS = "before, after = network(torch.tensor(np.stack([image, painted])))\n    "
FALL = {
    None: "Replace the dots",
    f"{PAINT}{LOGITS}return after - before": "The other way round",
    f"{PAINT.replace('= grey', '= 0')}{LOGITS}return before - after": "not in black",
    f"{PAINT.replace('image.copy()', 'image')}{LOGITS}return before - after": "work on a copy",
    f"{PAINT.replace('column : column + side', ':')}{LOGITS}return before - after": "and no more",
}


@pytest.mark.parametrize(("answer", "hint"), POINTING.items())
def test_a_wrong_pointing_game_gets_its_hint(exercises, answer, hint):
    said = exercises(CHAPTER).answer(0, *[answer] if answer else [])
    assert hint in said and "Right" not in said


@pytest.mark.parametrize(("answer", "hint"), FALL.items())
def test_a_wrong_occlusion_gets_its_hint(exercises, answer, hint):
    said = exercises(CHAPTER).answer(1, *[answer] if answer else [])
    assert hint in said and "Right" not in said


@pytest.mark.parametrize("number", [0, 1])
def test_the_solutions_pass(exercises, number):
    assert "Right" in exercises(CHAPTER).solve(number)
