"""What ``audit.toml`` accepts is shown and stops nothing, until it gets worse."""

from dataclasses import replace

import pytest

from cxrlib.audit.accepted import Accepted, accept, read_accepted
from cxrlib.audit.probes import Finding
from cxrlib.audit.rules import PROBES, column_probe
from cxrlib.audit.run import Audit
from cxrlib.errors import ConfigError
from cxrlib.evaluation.metrics import Estimate

FACTS = {"name": "folder", "images": 40, "patients": 20, "ill": 20, "image_size": 32, "skipped": [],
         "splits": {}, "lungs_found": 1.0, "content_hash": "0", "columns": {}}  # fmt: skip


@pytest.fixture
def audit():
    """A severe column at an AUC of 0.80 (0.70 to 0.90), four duplicates, and a letter as a warning."""
    findings = (
        Finding(column_probe("ward"), "severe", Estimate(0.8, 0.7, 0.9, 40), 0.001, 0.01, 0.5),
        Finding(PROBES["duplicate_splits"], "severe", images=4, detail={"pairs": 2, "exact": 1}),
        Finding(PROBES["marker"], "warning", Estimate(0.62, 0.58, 0.66, 40), 0.001, 0.02, 0.2),
    )
    return Audit(findings, FACTS, (), {"seed": 0})


def test_an_accepted_finding_is_shown_and_no_longer_counts(audit):
    found = accept(
        audit, [Accepted("column_ward", "wards differ", 0.75), Accepted("duplicate_splits", "x", 4)]
    )
    assert found["column_ward"].severity == "severe" and found["column_ward"].standing == "accepted"
    assert found.severe == () and found.verdict == "warning"


def test_it_counts_again_when_its_interval_is_above_the_ceiling_or_more_images_are_concerned(audit):
    worse = accept(audit, [Accepted("column_ward", "x", 0.69), Accepted("duplicate_splits", "x", 3)])
    assert worse.severe == ("column_ward", "duplicate_splits") and worse.verdict == "severe"
    warned = accept(audit, [Accepted("marker", "x", 0.57)])
    assert warned["marker"].worse and "marker" in warned.severe  # whatever its severity


def test_an_entry_of_another_finding_does_not_count_and_one_of_this_goes_first(audit):
    entries = [Accepted("column_ward", "all", 0.9), Accepted("column_ward", "this", 0.6, "effusion")]
    assert accept(audit, entries, "effusion")["column_ward"].accepted.reason == "this"
    assert accept(audit, entries[1:], "pneumonia")["column_ward"].accepted is None


def test_what_was_accepted_and_not_asked_is_a_limit(audit):
    assert any("'source'" in limit for limit in accept(audit, [Accepted("source", "x", 0.7)]).limits)


def test_the_file_is_read_as_written(tmp_path):
    (tmp_path / "audit.toml").write_text(
        '[[accepted]]\nprobe = "column_ward"\nreason = " wards differ "\nceiling = 0.75\n'
        '[[accepted]]\nprobe = "duplicates"\nreason = "twins"\nceiling = 8\nfinding = "effusion"\n'
    )
    found = read_accepted(tmp_path / "audit.toml", ["image_id", "ward"], ["effusion"])
    assert found == (
        Accepted("column_ward", "wards differ", 0.75), Accepted("duplicates", "twins", 8.0, "effusion")
    )  # fmt: skip


GOOD = {"probe": '"marker"', "reason": '"known"', "ceiling": "0.7"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"reason": None}, "'reason' is missing"),
        ({"reason": '"  "'}, "'reason' is empty"),
        ({"probe": None}, "'probe' is missing"),
        ({"probe": '"markre"'}, "no probe 'markre'"),
        ({"probe": '"column_sex"'}, "no probe 'column_sex'"),
        ({"ceiling": None}, "'ceiling' is missing"),
        ({"ceiling": "70"}, "70 is not an AUC from 0.5 to 1"),
        ({"ceiling": "true"}, "True is not an AUC"),
        ({"ceiling": "nan"}, "nan is not an AUC"),
        ({"probe": '"duplicates"', "ceiling": "0.7"}, "0.7 is not a whole number"),
        ({"celing": "0.7"}, "no key 'celing'"),
        ({"finding": '"effusion"'}, "'effusion' is not audited"),
        ({"finding": "3"}, "'finding' is empty or no text"),
    ],
)
def test_a_slip_is_named_with_its_file_and_key(tmp_path, change, said):
    path = tmp_path / "audit.toml"
    lines = [f"{key} = {value}" for key, value in {**GOOD, **change}.items() if value is not None]
    path.write_text("[[accepted]]\n" + "\n".join(lines))
    with pytest.raises(ConfigError) as error:
        read_accepted(path, ["ward"])
    assert said in str(error.value) and "audit.toml, entry 1" in str(error.value)


@pytest.mark.parametrize(
    "text", ["[[accepted", 'accepted = "marker"', "[accept]\n", "", "\x00", "[[accepted]]\n=1"]
)
def test_what_is_no_list_of_entries_is_named(tmp_path, text):
    (tmp_path / "audit.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"audit\.toml"):
        read_accepted(tmp_path / "audit.toml", [])


def test_the_same_probe_twice_is_refused(tmp_path):
    entry = "[[accepted]]\n" + "\n".join(f"{key} = {value}" for key, value in GOOD.items()) + "\n"
    (tmp_path / "audit.toml").write_text(2 * entry)
    with pytest.raises(ConfigError, match="twice"):
        read_accepted(tmp_path / "audit.toml", [])


# --- JUnit ---


def test_junit_has_a_case_a_check_and_a_failure_where_the_status_would_be_2(audit):
    from xml.etree import ElementTree as ET

    from cxrlib.audit.junit import junit

    evil = '\x1b[31m"><failure/>\x00\ufffe\ud800&amp;'
    hostile = replace(audit.findings[0], probe=column_probe(evil))
    audit = replace(audit, findings=(hostile, *audit.findings[1:]))
    found = accept(audit, [Accepted("duplicate_splits", evil, 4)])
    root = ET.fromstring(junit({evil: found}))
    cases = list(root.iter("testcase"))
    assert len(cases) == 3 and root.get("tests") == "3"
    assert [case.get("name") for case in cases if case.find("failure") is not None] == [
        'column_\\x1b[31m"><failure/>\\x00\\ufffe\\ud800&amp;'
    ]
    assert "Accepted: " in root.find(".//skipped").get("message")
    assert (root.get("failures"), root.get("skipped"), root.get("errors")) == ("1", "1", "0")


def test_ceilings_are_compared_with_numbers_that_are_there():
    silent = Finding(PROBES["marker"], "note", Estimate(0.9), accepted=Accepted("marker", "x", 0.6))
    assert not silent.worse  # no interval: nothing is established


def test_a_finding_that_is_fine_is_neither_worse_nor_accepted():
    """An interval above the ceiling that correction leaves to chance stops no pipeline."""
    cured = Finding(PROBES["marker"], "fine", Estimate(0.56, 0.51, 0.61, 40), 0.2, 1.0)
    cured = replace(cured, accepted=Accepted("marker", "x", 0.5))
    assert (cured.worse, cured.standing) == (False, "fine")
