"""The numbers in the README and the cards are those recorded, and what they point to is there."""

import json
import re
from pathlib import Path

import pytest
from committed import MARKED

from cxrlib.datasets import SOURCES, describe
from cxrlib.evaluation.results import recorded

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CARDS = sorted([ROOT / "cxrlib" / "lungs" / "data" / "lungs.md", *(ROOT / "cards").glob("*.md")])
PROSE = {path.stem: path.read_text(encoding="utf-8") for path in CARDS} | {"README": README}


@pytest.mark.parametrize(
    "claim", [claim for text in PROSE.values() for claim in MARKED.findall(text)], ids=lambda claim: claim[2]
)
def test_a_number_in_prose_is_the_recorded_one(claim):
    text, place, key, spec = claim
    assert text.strip() == format(recorded(place).estimate(key), spec)


def test_every_result_in_the_readmes_tables_is_marked_with_its_record():
    tables = "\n".join(line for line in README.splitlines() if line.startswith("|"))
    intervals = re.findall(r"\d\.?\d*%? \([+−\d.%]+(?:–| to )[+−\d.%]+\)", tables)
    assert len(intervals) == sum("(" in claim[0] for claim in MARKED.findall(tables)) > 50


@pytest.mark.parametrize("name", PROSE)
def test_every_mark_is_understood_and_no_estimate_of_a_card_goes_without(name):
    text = PROSE[name]
    assert len(MARKED.findall(text)) == text.count("<!--")
    if name != "README":
        intervals = re.findall(r"\d\.?\d*%? \([+−\d.%]+(?:–| to )[+−\d.%]+\)", text)
        assert len(intervals) == sum("(" in claim[0] for claim in MARKED.findall(text))


@pytest.mark.parametrize("path", [ROOT / "README.md", *CARDS], ids=lambda path: path.stem)
def test_local_links_and_pictures_exist(path):
    text = path.read_text(encoding="utf-8")
    targets = [t for t in re.findall(r"\]\(([^)]+)\)", text) if not t.startswith(("http", "#"))]
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_every_published_source_has_a_card_of_a_page_with_its_terms_and_citations():
    described = {name: describe(name) for name in SOURCES if name not in ("folder", "chestmnist")}
    assert set(described) == set(PROSE) - {"README", "lungs", "classifiers"}
    for name, source in described.items():
        text = " ".join(PROSE[name].split())
        assert source["licence"].split(",")[0].split(";")[0] in text, name
        assert [doi for doi in re.findall(r"doi:([\w./]+\w)", source["citation"]) if doi not in text] == []
        assert len(PROSE[name].splitlines()) <= 60


def test_the_audits_benchmark_is_quoted_as_recorded():
    numbers = json.loads((ROOT / "benchmarks" / "audit.json").read_text(encoding="utf-8"))["numbers"]
    clean = numbers["clean.false_alarms"]
    assert f"of {clean['n']} clean cohorts {clean['value']} had a severe finding" in README
    planted = ("marker", "portable", "collimation", "exposure", "devices", "projection")
    (found,) = {(numbers[f"{name}.found"]["value"], numbers[f"{name}.found"]["n"]) for name in planted}
    assert f"found and\nnamed in {found[0]} of {found[1]}" in README


def test_the_search_on_kermany_is_quoted_as_recorded():
    found = json.loads((ROOT / "benchmarks" / "kermany.json").read_text(encoding="utf-8"))["test"]["numbers"]
    auc, accuracy = (
        "{value:{f}} ({low:{f}}–{high:{f}})".format(**found[name], f=form)
        for name, form in (("auc", ".3f"), ("accuracy", ".1%"))
    )
    assert f"{auc} and {accuracy}" in README


def test_what_was_done_to_break_the_package_is_quoted_as_recorded():
    record = json.loads((ROOT / "benchmarks" / "reliability.json").read_text(encoding="utf-8"))
    rows = {row["name"]: row for row in record["rows"]}
    fuzzed = sum(row["tried"] for name, row in rows.items() if name.startswith("fuzz."))
    assert f"{fuzzed:,} damaged images" in README
    large = rows["load.audit"]
    assert f"audit of 20,000 images took {large['value']:g} GB" in README
    found, quiet = rows["burned_in.nih_found"], rows["burned_in.nih_quiet"]
    counts = f"{found['tried'] - found['failed']} of {found['tried']}, of those without {quiet['failed']} of"
    assert f"such a line {counts} {quiet['tried']}" in README


def test_the_audit_in_the_readme_is_the_recorded_one():
    record = recorded("phantom/own_folder")
    names = {
        "Lead letters": "marker", "Columns taken together": "metadata", "Column ward": "column_ward",
        "The corners alone": "corners", "The outer tenth alone": "frame", "The whole image": "whole",
        "The lungs painted over": "lungs_removed", "A 16 × 16 blur": "blur",
    }  # fmt: skip
    rows = re.findall(r"^(severe|warning|note) +(.+?)  +(\d\.\d{3} \(.*?\))", README, re.M)
    assert {title for _, title, _ in rows} == set(names)
    for severity, title, auc in rows:
        assert auc == str(record.estimate(f"{names[title]}.auc"))
        assert record.estimate(f"{names[title]}.severe").value == (severity == "severe")
    seconds = recorded("kermany/scorecard").provenance["seconds"]
    assert f"that took {seconds:.0f} seconds" in README


def test_seven_figures_tell_the_story():
    assert len(re.findall(r"^!\[.{20,}\]\(figures/\S+\.png\)$", README, re.M)) == 7
