"""Pictures of people in figures are listed with their licence, and few."""

import json
import re
from pathlib import Path

import pandas as pd

FIGURES = Path(__file__).resolve().parents[2] / "figures"
ROW = re.compile(r"^\| `([^`]+\.png)` \| `([^`]+)` \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
ROWS = ROW.findall((FIGURES / "SOURCES.md").read_text(encoding="utf-8"))


def test_at_most_24_pictures_are_shown_each_once_in_a_figure_that_is_there():
    assert 0 < len(ROWS) <= 24
    assert len({row[:2] for row in ROWS}) == len(ROWS)
    assert [figure for figure, *_ in ROWS if not (FIGURES / figure).is_file()] == []


def test_every_picture_of_the_strata_is_listed_and_every_one_listed_is_shown():
    numbers = json.loads((FIGURES / "kermany/strata_pictures.json").read_text(encoding="utf-8"))["numbers"]
    listed = {name for figure, name, *_ in ROWS if figure == "kermany/strata_pictures.png"}
    keys = {f"answer.{Path(name).parts[0]}.{Path(name).stem}" for name in listed}
    assert keys == set(numbers) and len(listed) == 16


def test_every_radiograph_of_the_first_look_is_listed_and_every_one_listed_is_shown():
    numbers = json.loads((FIGURES / "kermany/radiographs.json").read_text(encoding="utf-8"))["numbers"]
    rows = [row for row in ROWS if row[0] == "kermany/radiographs.png"]
    assert {f"label.{Path(name).stem}" for _, name, *_ in rows} == set(numbers) and len(rows) == 6
    assert {licence for _, name, licence, _ in rows if "/" not in name} == {"no restriction on use"}
    assert {licence for _, name, licence, _ in rows if "/" in name} == {"CC BY 4.0"}


def test_every_picture_names_its_licence_and_where_print_was_painted_over():
    labels = pd.read_csv(FIGURES / "kermany/strata_labels.csv").set_index("image_id")
    for _, name, licence, changes in ROWS:
        if name in labels.index:
            assert licence == "CC BY 4.0"
            assert (changes == "two corners painted") == (labels.loc[name, "letter"] == "tall")
            assert labels.loc[name, "print"] == "no" or changes == "two corners painted"
