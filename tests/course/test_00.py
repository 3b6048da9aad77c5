"""The first chapter's exercises: wrong answers get the hint that they need, and the solutions pass."""

import json
import re

import pytest

from cxrlib.evaluation.results import project_root

CHAPTER = "00_start_here"
GUESSES = {
    None: "Replace the dots",
    '"HHI"': "There are 12 images, and you gave 3 letters",
    '"HIHIHIHIHIHX"': "Only H and I",
    '"hihihihihihi"': "Only H and I",
}
PARROT = {
    None: "nothing is returned yet",
    "return labels.mean()": "the share of the ill",
    "return (labels == 0).mean()": "the share of the healthy",
    "return max(labels.sum(), (1 - labels).sum())": "A share, please",
    "return 0.5": "three of one kind",
}


@pytest.mark.parametrize(("answer", "hint"), GUESSES.items())
def test_guesses_that_are_none_get_a_hint(exercises, answer, hint):
    said = exercises(CHAPTER).answer(0, *[answer] if answer else [])
    assert hint in said and "You are right" not in said


def test_twelve_guesses_are_counted_with_their_interval(exercises):
    said = exercises(CHAPTER).answer(0, '"H" * 12')
    right = int(re.search(r"right on (\d+) of 12: (\d+)% \(\d+%–\d+%\)", said)[1])
    assert 0 < right < 12
    assert f"{12 - right} of 12" in exercises(CHAPTER).answer(0, '"I" * 12')


@pytest.mark.parametrize(("answer", "hint"), PARROT.items())
def test_a_wrong_parrot_gets_its_hint(exercises, answer, hint):
    said = exercises(CHAPTER).answer(1, *[answer] if answer else [])
    assert hint in said and "Right." not in said


def test_the_solutions_pass(exercises):
    letters = exercises(CHAPTER).cells[exercises(CHAPTER)._after(0, "solution")]["source"]
    assert "right on 12 of 12" in exercises(CHAPTER).answer(0, letters.split("    #")[0])
    assert "Right." in exercises(CHAPTER).solve(1)


def test_the_table_names_every_chapter():
    folder = project_root() / "notebooks"
    cells = json.loads((folder / f"{CHAPTER}.ipynb").read_text(encoding="utf-8"))["cells"]
    named = re.findall(r"^\| (\d\d) ", "\n".join("".join(cell["source"]) for cell in cells), re.M)
    files = {path.name[:2] for path in folder.glob("[0-9][0-9]_*.ipynb")}
    assert named == sorted(named) and files <= {"00", *named}
