"""The audit beside other tools: cohorts are what they are said to be, and are counted as they were found."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from cxrlib.evaluation.results import project_root, read_record
from cxrlib.report.site.speed import add_peers

BENCHMARKS = project_root() / "benchmarks"


@pytest.fixture(scope="module")
def peers():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import audit_peers

        yield audit_peers
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def toy(peers, tmp_path_factory):
    """A folder with a pool of 44 phantoms and the plan of a cohort of each kind, and the plan."""
    work = tmp_path_factory.mktemp("peers")
    return work, peers.prepared(work, None, (1, 1, 0), 44, 44, 64)


def cohort(made, name):
    return next(one for one in made["cohorts"] if one["name"] == name)


def test_a_planted_cohort_has_its_kind_in_nine_of_ten_ill_and_one_in_ten_healthy(peers):
    has = {f"{n:04d}-{y}": {"marker": bool(n % 3)} for n in range(2000) for y in (0, 1)}
    for kind, ill in (("marker", 50), ("jpeg", 10)):
        one = {"pool": "phantom", "ill": ill, "kind": kind, "name": f"phantom-{ill}-{kind}-0"}
        stems, labels = peers.made_of.drawn(one, has, 2000)
        assert labels.mean() == ill / 100 and len({stem[:4] for stem in stems}) == 2000
        assert [int(stem[5]) for stem in stems] == labels.tolist()  # the ill are rendered ill
        there = np.array([stem.endswith(kind) != has[stem[:6]].get(kind, False) for stem in stems])
        assert there[labels == 1].mean() == pytest.approx(0.9, abs=0.06)
        assert there[labels == 0].mean() == pytest.approx(0.1, abs=0.03)
    clean = peers.made_of.drawn({"pool": "phantom", "ill": 50, "kind": "clean", "name": "clean"}, has, 50)
    assert all(stem.endswith("-plain") for stem in clean[0])


def test_a_treatment_changes_a_picture_a_little_and_always_alike(peers):
    image = (120 + 60 * np.sin(np.arange(64)[:, None] / 9) + np.arange(64)[None] / 2).astype(np.uint8)
    for kind, treat in peers.made_of.TREATMENTS.items():
        once, again = (treat(image, np.random.default_rng(1)) for _ in range(2))
        assert once.dtype == np.uint8 and once.shape == image.shape and np.array_equal(once, again)
        assert not np.array_equal(once, image)
        assert kind == "mirrored" or np.abs(once.astype(int) - image).mean() < 12


def test_the_files_and_the_plan_fit_together(toy):
    work, made = toy
    files = {path.stem for path in (work / "phantom").glob("*.png")}
    assert all(set(one["stems"]) <= files and len(one["stems"]) == 44 for one in made["cohorts"])
    assert {one["kind"] for one in made["cohorts"]} >= {"clean", "marker", "jpeg", "heel"}
    assert set(made["timed"]["stems"]) <= files


def test_this_package_is_asked_as_the_others_are(peers, toy):
    work, made = toy
    one = cohort(made, "phantom-50-exposure-0")
    looked, features, place = peers.looked_at(work / "phantom", sorted(one["stems"]), work / "ours")
    rows = np.array([place[stem] for stem in one["stems"]])
    found = peers.audited(looked, features, rows, np.array(one["labels"]))
    assert found["score"] > 0.7 and set(found) == {"flag", "score", "names", "views"}


@pytest.mark.parametrize("tool", ["datalab", "deepchecks", "shortkit"])
def test_another_tool_says_in_parts_what_it_says_as_a_whole(peers, toy, tool):
    folder = Path(os.environ.get("CXRLIB_PEER_ENVIRONMENTS", "/nowhere"))
    if not (folder / tool / ".made").is_file():
        pytest.skip("CXRLIB_PEER_ENVIRONMENTS names no folder with it; benchmarks/audit_peers.py makes it")
    work, made = toy
    mine = [cohort(made, f"phantom-50-{kind}-0") for kind in ("clean", "exposure")]
    made = made | {"cohorts": mine}
    (work / "plan.json").write_text(json.dumps(made))
    if tool == "shortkit":
        peers.features_for_shortkit(work, made)
    assert peers.run_peer(folder, tool, work) is None
    rows = peers.lines(work / f"{tool}.jsonl")
    readings = [reading for reading in peers.READINGS if reading.startswith(tool)]
    assert [row["name"] for row in rows] == [one["name"] for one in mine]
    assert all({"flag", "score", "names"} <= set(row[reading]) for row in rows for reading in readings)
    assert json.loads((work / f"{tool}-cost.json").read_text())["seconds"] > 0


def test_cohorts_are_counted_and_who_is_ahead_is_said(peers):
    cohorts, ours, theirs = {}, [], []
    for kind, count in (("clean", 20), ("exposure", 4)):
        for number in range(count):
            name = f"{kind}{number}"
            cohorts[name] = {"pool": "phantom", "ill": 50, "kind": kind, "name": name}
            planted = kind == "exposure"
            score = 0.5 + number / 100 + 0.2 * (planted and number > 0)
            names = ["marker", "exposure"] if planted and number < 2 else []
            ours.append({"name": name, "flag": number == 0, "score": score, "names": names})
            theirs.append({"name": name, "flag": planted, "score": planted, "names": ["dark"] * planted})
    numbers = peers.summary({"cxrlib": ours, "datalab": theirs}, cohorts)
    value = {key: one["value"] for key, one in numbers.items()}
    assert value["cxrlib.ill_50.clean.flagged"] == 1 / 20 and value["cxrlib.ill_50.exposure.flagged"] == 1 / 4
    assert value["cxrlib.ill_50.clean.threshold"] == pytest.approx(0.68)  # one of twenty is above
    assert value["cxrlib.ill_50.exposure.detected"] == 3 / 4
    assert value["cxrlib.ill_50.exposure.named"] == 1 / 2
    assert value["cxrlib.ill_50.exposure.others_named"] == 1 / 2
    assert numbers["cxrlib.ill_50.exposure.detected"]["low"] < 3 / 4 < 1
    assert {(row["row"], row["tool"]) for row in peers.behind(numbers)} == {
        ("ill_50.clean.flagged", "datalab"), ("ill_50.exposure.flagged", "datalab"),
        ("ill_50.exposure.detected", "datalab"), ("ill_50.exposure.named", "datalab"),
    }  # fmt: skip


def test_the_report_shows_the_counts_of_each_tool(peers, tmp_path):
    page = tmp_path / "numbers.md"
    page.write_text("# Numbers\n")
    add_peers(page, tmp_path, tmp_path / "out")
    assert page.read_text() == "# Numbers\n"
    share = {"value": 0.9, "low": 0.6, "high": 0.98, "n": 10}
    numbers = {
        f"{reading}.ill_10.jpeg.{what}": share
        for reading in ("cxrlib", "datalab")
        for what in ("flagged", "detected", "named")[: 3 if reading == "cxrlib" else 2]
    }  # fmt: skip
    record = {
        "images": 400, "agreement": 0.9, "numbers": numbers, "failed": {"shortkit": "no <wheel>"},
        "tools": {reading: peers.READINGS[reading] for reading in ("cxrlib", "datalab")},
        "command": "python benchmarks/audit_peers.py", "provenance": {"hardware": "a machine"},
    }  # fmt: skip
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "audit_peers.json").write_text(json.dumps(record))
    add_peers(page, tmp_path, tmp_path / "out")
    text = page.read_text()
    assert "jpeg, one in ten ill" in text and "9, 9, 9" in text and "9, 9, –" in text
    assert "no &lt;wheel&gt;" in text and "python benchmarks/audit_peers.py" in text
    assert (tmp_path / "out" / "benchmarks" / "audit_peers.json").is_file()


def test_the_committed_record_has_every_kind_and_says_who_is_ahead(peers):
    record = read_record(BENCHMARKS / "audit_peers.json")
    raw = json.loads((BENCHMARKS / "audit_peers.json").read_text(encoding="utf-8"))
    kinds = (*peers.made_of.CONFOUNDERS, *peers.made_of.UNSEEN)
    for reading in raw["tools"]:
        assert record.estimate(f"{reading}.ill_50.clean.flagged").n >= 20
        for kind in kinds:
            assert record.estimate(f"{reading}.ill_50.{kind}.detected").low is not None
    assert raw["ahead_of_cxrlib"] == peers.behind(raw["numbers"])
    shown = (BENCHMARKS.parent / "docs" / "findings.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in shown if line in peers.table(raw)] == peers.table(raw)
