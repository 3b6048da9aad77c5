"""The numbers in the README and the model card are those recorded, and what the README points to is there."""

import re
from pathlib import Path

import pytest

from cxrlib.results import recorded

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CARD = (ROOT / "cxrlib" / "data" / "lungs.md").read_text(encoding="utf-8")
ESTIMATE = r"(\d[\d.]*%? \([\d.%]+–[\d.%]+\))"
MARKED = re.compile(ESTIMATE + r"<!-- ([\w-]+)/([\w-]+)/([\w-]+):([\w.]+?)(?::(\.\d[f%]))? -->")


@pytest.mark.parametrize("claim", MARKED.findall(README) + MARKED.findall(CARD), ids=lambda claim: claim[4])
def test_a_number_in_prose_is_the_recorded_one(claim):
    text, dataset, notebook, name, key, spec = claim
    assert text.strip() == format(recorded(dataset, notebook, name).estimate(key), spec)


def test_every_result_in_the_readmes_tables_is_marked_with_its_record():
    tables = re.search(r"\| what the classifier sees.*?\n\n", README, re.DOTALL)[0]
    tables += re.search(r"\| trained on \|.*?\n\n", README, re.DOTALL)[0]
    intervals = re.findall(r"\d\.?\d*%? \([^)]*–[^)]*\)", tables)
    assert len(intervals) == len(MARKED.findall(tables)) > 0


def test_local_links_and_pictures_of_the_readme_exist():
    targets = [t for t in re.findall(r"\]\(([^)]+)\)", README) if not t.startswith(("http", "#"))]
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
