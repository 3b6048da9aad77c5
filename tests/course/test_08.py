"""The exercises on remedies: wrong answers get the hint they need, the solutions pass."""

import pytest

CHAPTER = "08_focus_on_the_chest"
CROP = {
    None: "Replace the dots",
    "return image[10:50, 10:50]": "with resize",
    "return crop(image, mask)": "the crop without a margin",
    "return crop_to_lungs(few.take([k]), margin=margin / 2).images[0]": "twice the margin",
    "return image": "keep it within the image",
}
DRAWS = {
    None: "Replace the dots",
    "len(groups) / np.bincount(groups).min()": "a quarter of the draws, not all",
    "np.bincount(groups).min() / (len(groups) / 4)": "The other way up",
    "1.0": "over the group's images",
}
STAY = {
    None: "Replace the dots",
    "'letters'": "Use the five names",
    "'exposure', 'portable'": "the mask blackens them",
    "'exposure'": "Something else lies on the lungs",
}


def answer_of(exercises, number, answer):
    return exercises(CHAPTER).answer(number, *[answer] if answer else [])


@pytest.mark.parametrize(("answer", "hint"), CROP.items())
def test_a_wrong_crop_gets_its_hint(exercises, answer, hint):
    if answer and "few" in answer:  # which of the images this one is
        answer = f"k = next(i for i, one in enumerate(few.images) if np.array_equal(one, image)); {answer}"
    assert hint in answer_of(exercises, 0, answer)


@pytest.mark.parametrize(("answer", "hint"), DRAWS.items())
def test_a_wrong_number_of_draws_gets_its_hint(exercises, answer, hint):
    assert hint in answer_of(exercises, 1, answer)


@pytest.mark.parametrize(("answer", "hint"), STAY.items())
def test_a_wrong_set_of_confounders_gets_its_hint(exercises, answer, hint):
    assert hint in answer_of(exercises, 2, answer)


@pytest.mark.parametrize("number", range(3))
def test_the_solution_passes(exercises, number):
    assert "Right." in exercises(CHAPTER).solve(number)


def test_what_is_said_to_stay_is_what_differs_in_most_twins(exercises):
    rows = [line.split() for line in exercises(CHAPTER).solve(2).splitlines() if line.endswith("%")]
    share = {name: float(said.rstrip("%")) for name, said in rows}
    assert {name for name, value in share.items() if value > 50} == {"exposure", "devices", "projection"}
