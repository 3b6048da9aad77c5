"""The README's numbers are those that are recorded, and what it points to is there."""

import re
from pathlib import Path

import pytest

from cxrlib.results import recorded

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MARKED = re.compile(r"([^|\s][^|<>]*?)<!-- ([\w-]+)/([\w-]+)/([\w-]+):([\w.]+?)(?::(\.\d[f%]))? -->")


@pytest.mark.parametrize("claim", MARKED.findall(README), ids=lambda claim: claim[4])
def test_a_number_in_the_readme_is_the_recorded_one(claim):
    text, dataset, notebook, name, key, spec = claim
    assert text.strip() == format(recorded(dataset, notebook, name).estimate(key), spec)


def test_every_result_in_the_readmes_table_is_marked_with_its_record():
    table = re.search(r"\| what the classifier sees.*?\n\n", README, re.DOTALL)[0]
    intervals = re.findall(r"\d\.?\d*%? \([^)]*–[^)]*\)", table)
    assert len(intervals) == len(MARKED.findall(table)) > 0


def test_local_links_and_pictures_of_the_readme_exist():
    targets = [t for t in re.findall(r"\]\(([^)]+)\)", README) if not t.startswith(("http", "#"))]
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
