"""The numbers in README, docs, cards and the report's first page are those recorded; links lead somewhere."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from committed import MARKED, read

from cxrlib.datasets import SOURCES, describe
from cxrlib.evaluation.results import read_record, recorded

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CARDS = sorted([ROOT / "cxrlib" / "lungs" / "data" / "lungs.md", *(ROOT / "cards").glob("*.md")])
DOCS = sorted((ROOT / "docs").glob("*.md"))
SITE = [ROOT / "cxrlib" / "report" / "site" / name for name in ("first_page.toml", "slides.toml")]
"""What the first page of the report and the slides say."""
PROSE = {path.name: path.read_text(encoding="utf-8") for path in (*CARDS, *DOCS, *SITE)} | {
    "README.md": README
}
DOCUMENTS = README + "".join(PROSE[path.name] for path in DOCS)
SAID = " ".join(DOCUMENTS.split())
"""README and docs as one line."""


@pytest.mark.parametrize(
    "claim", [claim for text in PROSE.values() for claim in MARKED.findall(text)], ids=lambda claim: claim[2]
)
def test_a_number_in_prose_is_the_recorded_one(claim):
    text, place, key, spec = claim
    assert text.strip() == format(recorded(place).estimate(key), spec)


@pytest.mark.parametrize(("name", "unmarked", "at_least"), [("README.md", 0, 20), ("findings.md", 2, 70)])
def test_every_result_of_readme_and_findings_is_marked_with_its_record(name, unmarked, at_least):
    """But for the two of the search on Kermany, which have a test of their own."""
    intervals = re.findall(r"\d\.?\d*%? \([+−\d.%]+(?:–| to )[+−\d.%]+\)", PROSE[name])
    marked = sum("(" in claim[0] for claim in MARKED.findall(PROSE[name]))
    assert len(intervals) - unmarked == marked > at_least


@pytest.mark.parametrize("name", PROSE)
def test_every_mark_is_understood_and_no_estimate_of_a_card_goes_without(name):
    text = PROSE[name]
    assert len(MARKED.findall(text)) == text.count("<!--")
    if name in {path.name for path in (*CARDS, *SITE)}:
        intervals = re.findall(r"\d\.?\d*%? \([+−\d.%]+(?:–| to )[+−\d.%]+\)", text)
        assert len(intervals) == sum("(" in claim[0] for claim in MARKED.findall(text))


def anchors(path):
    """Where a link into a page may lead: its headings, as GitHub and the report name them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


WRITTEN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *CARDS, *DOCS]


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_local_links_and_pictures_exist(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if not target.startswith(("http", "mailto:")):
            file, _, anchor = target.partition("#")
            place = path.parent / file if file else path
            assert place.exists(), target
            assert not anchor or anchor in anchors(place), target


def test_the_readme_is_short_and_every_page_of_docs_is_found_from_it():
    assert len(README.splitlines()) <= 150
    linked = set(re.findall(r"\]\((docs/[^)#]+)", README))
    assert {f"docs/{path.name}" for path in DOCS} <= linked


def test_the_course_in_the_readme_asks_and_answers_what_the_first_page_does():
    chapters = tomllib.loads(PROSE["first_page.toml"])["chapters"]
    rows = [
        f"| [{name[:2]}](notebooks/{name}.ipynb) | {c['question']} | {c['answer']} |"
        for name, c in chapters.items()
    ]
    assert [line for line in README.splitlines() if ".ipynb) |" in line] == rows
    assert list(chapters) == [path.stem for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))]


def test_every_published_source_has_a_card_of_a_page_with_its_terms_and_citations():
    described = {name: describe(name) for name in SOURCES if name not in ("folder", "chestmnist")}
    assert set(described) == {path.stem for path in CARDS} - {"lungs", "classifiers"}
    for name, source in described.items():
        text = " ".join(PROSE[f"{name}.md"].split())
        assert source["licence"].split(",")[0].split(";")[0] in text, name
        assert [doi for doi in re.findall(r"doi:([\w./]+\w)", source["citation"]) if doi not in text] == []
        assert len(PROSE[f"{name}.md"].splitlines()) <= 60


def test_the_audits_benchmark_is_quoted_as_recorded():
    numbers = json.loads((ROOT / "benchmarks" / "audit.json").read_text(encoding="utf-8"))["numbers"]
    clean = numbers["clean.false_alarms"]
    assert f"of {clean['n']} clean cohorts {clean['value']} had a severe finding" in SAID
    planted = ("marker", "portable", "collimation", "exposure", "devices", "projection")
    (found,) = {(numbers[f"{name}.found"]["value"], numbers[f"{name}.found"]["n"]) for name in planted}
    assert SAID.count(f"found and named in {found[0]} of {found[1]}") == 2


def test_what_other_tools_flag_is_quoted_as_recorded():
    numbers = json.loads((ROOT / "benchmarks" / "audit_peers.json").read_text(encoding="utf-8"))["numbers"]

    def flagged(tool: str) -> tuple[int, int]:
        mine = [
            value for name, value in numbers.items()
            if re.fullmatch(rf"{tool}\.ill_50\.\w+\.flagged", name) and ".clean." not in name
        ]  # fmt: skip
        assert len(mine) == 12
        return round(sum(one["value"] * one["n"] for one in mine)), sum(one["n"] for one in mine)

    ours, of = flagged("cxrlib")
    drift, datalab, given = (flagged(one)[0] for one in ("deepchecks_drift", "datalab", "shortkit_outside"))
    assert f"given our features of signs and frame, {given}," in SAID
    assert (
        f"of {of} cohorts with one of twelve things planted, the audit flags {ours} at its defaults" in SAID
    )
    assert f"Deepchecks' drift {drift} and cleanlab's Datalab {datalab};" in SAID
    quiet = ("cxrlib", "deepchecks_drift", "datalab", "shortkit_outside")
    clean = [numbers[f"{tool}.ill_50.clean.flagged"] for tool in quiet]
    assert {(one["value"], one["n"]) for one in clean} == {
        (0.0, 60)
    } and "of 60 clean ones each flags 0" in SAID
    seconds = [numbers[f"{tool}.per_1000.seconds"]["value"] for tool in ("cxrlib", "datalab")]
    assert round(seconds[0] / seconds[1]) == 5 and "takes five times as long as Datalab" in SAID


def test_the_benchmark_of_audited_classifiers_is_quoted_as_recorded():
    found = read_record(ROOT / "benchmarks" / "audit_model.json").numbers
    counts = {}
    for name in ("use.found", "use.found_by_either", "use.false_alarms", "invisible.exploitable"):
        counts[name] = (found[name].n, round(found[name].value * found[name].n))
    flipping, by_column = counts["use.found"]
    assert f"of {flipping} networks that change a fifth of their calls or more" in SAID
    either = counts["use.found_by_either"][1]
    assert f"of {by_column} that they use its column, and of all {either} that they use its column or" in SAID
    assert either == flipping
    assert (
        "Of {} networks trained without a confounder it says so of {}.".format(*counts["use.false_alarms"])
        in SAID
    )
    chapter = " ".join("\n".join(cell.source for cell in read("09_audit_your_own_data").cells).split())
    assert f"Of {flipping} networks whose calls a confounder turns by a fifth or more, {by_column}" in chapter
    assert (
        counts["use.false_alarms"] == (flipping, 0)
        and f"of {flipping} without one, none: by its interval, fewer than one in five." in chapter
    )
    assert found["use.false_alarms"].high < 0.2
    columns, wrong = counts["invisible.exploitable"]
    assert f"Of {columns} columns that go with the label and that no pixel shows, {wrong} are" in SAID
    for name in ("use.rank_correlation", "use.planted.rank_correlation"):
        assert str(found[name]) in SAID


def test_the_search_on_kermany_is_quoted_as_recorded():
    found = json.loads((ROOT / "benchmarks" / "kermany.json").read_text(encoding="utf-8"))["test"]["numbers"]
    auc, accuracy = (
        "{value:{f}} ({low:{f}}–{high:{f}})".format(**found[name], f=form)
        for name, form in (("auc", ".3f"), ("accuracy", ".1%"))
    )
    assert f"{auc} and {accuracy}" in SAID


def test_what_was_done_to_break_the_package_is_quoted_as_recorded():
    record = json.loads((ROOT / "benchmarks" / "reliability.json").read_text(encoding="utf-8"))
    rows = {row["name"]: row for row in record["rows"]}
    fuzzed = sum(row["tried"] for name, row in rows.items() if name.startswith("fuzz."))
    assert f"{fuzzed:,} damaged images" in SAID
    large = rows["load.audit"]
    assert f"audit of 20,000 images took {large['value']:g} GB" in SAID
    found, quiet = rows["burned_in.nih_found"], rows["burned_in.nih_quiet"]
    counts = f"{found['tried'] - found['failed']} of {found['tried']}, of those without {quiet['failed']} of"
    assert f"such a line {counts} {quiet['tried']}" in SAID


def test_counts_without_a_mark_are_the_recorded_ones():
    """An estimate's mark shows its value and interval; these are counts of images, kinds and cohorts."""
    strata, found = (recorded(f"kermany/{name}").numbers for name in ("strata", "audit_strata"))
    children = strata["healthy.machine.specificity"].n
    assert f"Of its {children} healthy children in the official test" in SAID
    assert f"of its {children} healthy children healthy" in PROSE["first_page.toml"]
    with (ROOT / "figures" / "kermany" / "strata_labels.csv").open(encoding="utf-8") as labels:
        assert SAID.count(f"{sum(1 for _ in labels) - 1} images") >= 2
    machine, washed_out = found["machine.kinds.count"], found["washed_out.kinds.count"]
    assert f"Of its {machine.n} kinds, the {machine.value:.0f} in which most of the images" in SAID
    assert f"the {washed_out.value:.0f} kinds in which most are washed out" in SAID
    for name, words in (("any", "an alarm in"), ("splits", "splits in")):
        alarms = found[f"clean.{name}.alarms"]
        assert f"{words} {alarms.value * alarms.n:.0f} of {alarms.n}" in SAID
    classifiers = read_record(ROOT / "benchmarks" / "audit_model.json").numbers
    letters, devices = (classifiers[f"visible.found.{name}"] for name in ("marker", "devices"))
    assert f"of {letters.n} columns of lead letters {letters.value * letters.n:.0f} are said" in SAID
    assert f"of {devices.n} of devices {devices.value * devices.n:.0f}." in SAID


def test_the_audit_in_the_docs_is_the_recorded_one():
    record = recorded("phantom/own_folder")
    names = {
        "Lead letters": "marker", "Columns taken together": "metadata", "Column ward": "column_ward",
        "The corners alone": "corners", "The outer tenth alone": "frame", "The whole image": "whole",
        "The lungs painted over": "lungs_removed", "A 16 × 16 blur": "blur",
    }  # fmt: skip
    rows = re.findall(r"^(severe|warning|note) +(.+?)  +(\d\.\d{3} \(.*?\))", DOCUMENTS, re.M)
    assert {title for _, title, _ in rows} == set(names)
    for severity, title, auc in rows:
        assert auc == str(record.estimate(f"{names[title]}.auc"))
        assert record.estimate(f"{names[title]}.severe").value == (severity == "severe")
    seconds = recorded("kermany/scorecard").provenance["seconds"]
    assert f"that took {seconds:.0f} seconds" in SAID


def test_one_picture_opens_the_readme_and_six_tell_the_story_of_the_findings():
    picture = re.compile(r"^!\[.{20,}\]\((?:\.\./)?(figures/\S+\.(?:png|gif))\)$", re.M)
    assert len(picture.findall(README)) == 1
    assert len(set(picture.findall(PROSE["findings.md"]))) == 6
