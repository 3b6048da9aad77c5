"""The page's words say no more than was found, and name what to do first."""

from dataclasses import replace

import pytest

from cxrlib.audit import words
from cxrlib.audit.accepted import Accepted, accept
from cxrlib.audit.page import page, sentence, spare, write
from cxrlib.audit.probes import Finding
from cxrlib.audit.rules import PROBES, column_probe
from cxrlib.audit.run import Audit, _rank
from cxrlib.audit.use import Told
from cxrlib.audit.verdicts import Asked, Use
from cxrlib.errors import ConfigError
from cxrlib.evaluation.metrics import Estimate

FACTS = {"name": "folder", "images": 400, "patients": 200, "ill": 200, "image_size": 32, "skipped": [],
         "splits": {}, "lungs_found": 1.0, "content_hash": "0", "columns": {}}  # fmt: skip


def found(name, value, severity="severe", spread=0.03, share=0.8, **more):
    auc = Estimate(value, value - spread, value + spread, 400)
    return Finding(PROBES[name], severity, auc, 0.0005, 0.013, share, **more)


def asked(finding, followed_by):
    told = Told(Estimate(0.8, 0.7, 0.9, 400), 0.0005, 0.8, 0.8, 0.3)
    level = {"level": "as among the healthy", "images": 50, "ill": 20,
             "specificity": {"value": 0.8, "low": 0.7, "high": 0.9, "n": 30}}  # fmt: skip
    uses = {
        name: Use(replace(told, p_value=p, concordance=Estimate(0.8 if p < 1 else 0.5)), p, 0.5, [level])
        for name, p in followed_by.items()
    }
    return Asked(finding, None, None, uses)


@pytest.fixture
def audit():
    """Noise, of which JPEG traces keep half and exposure a tenth; letters, which chance lets pass; a view."""
    findings = (
        found("marker", 0.70, explained_by="compression", left=0.66),
        found("compression", 0.92, explained_by="texture", left=0.71),
        found("texture", 0.93),
        found("frame", 0.95),
        found("exposure", 0.80, "warning", explained_by="compression", left=0.53),
        Finding(PROBES["duplicates"], "note", images=4, detail={"pairs": 2, "exact": 1}),
    )
    settings = {"seed": 0, "permutations": 999}
    attributes = (asked(findings[2], {"net": 0.001}), asked(findings[0], {"net": 1.0}))
    one = {"auc": {"value": 0.9, "low": 0.8, "high": 1.0}}
    net = {"threshold": 0.5} | dict.fromkeys(("auc", "sensitivity", "specificity"), one["auc"])
    return Audit(tuple(sorted(findings, key=_rank)), FACTS, (), settings, attributes, {"net": net})


def test_findings_are_in_order_of_strength_and_explained_ones_come_behind(audit):
    names = [one.probe.name for one in audit.findings]
    assert names == ["frame", "texture", "marker", "compression", "exposure", "duplicates"]


@pytest.mark.parametrize(
    ("left", "said"),
    [(0.56, "it shows the same thing."), (0.60, "part of it is the same thing."), (0.65, "most of it")],
)
def test_what_is_left_is_worded_by_how_much_it_is(left, said):
    one = found("marker", 0.75, explained_by="texture", left=left)
    assert said in sentence(one) and f"an AUC of {left:.2f} is left" in sentence(one)
    assert one.shown_by_another == (left < 0.65)
    assert ("cannot be told apart from chance" in sentence(one)) == (left == 0.65)


def test_the_page_begins_with_causes_strongest_first_and_what_to_do(audit):
    cause, advice, views, followed = words.first(audit)
    assert cause == (
        "Most likely at fault: Noise, sharpness and resampling, AUC 0.930 (0.900–0.960) (2 other findings "
        "show the same thing or part of it); Lead letters, AUC 0.700 (0.670–0.730)."
    )
    assert advice == f"Do this first. {PROBES['texture'].advice}"
    assert views == (
        "Severe too, and not explained by that: The outer tenth alone, AUC 0.950 (0.920–0.980). These say "
        "that something differs, not what."
    )
    assert followed == (
        "The scores of net follow Noise, sharpness and resampling and were not shown to follow Lead letters."
    )
    html = page(audit, None)
    assert html.index("Most likely at fault") < html.index("Is the classifier safe?")


def test_an_accepted_cause_is_not_named_and_what_it_explains_is(audit):
    known = accept(audit, [Accepted("texture", "one export", 0.99)])
    assert "Traces of JPEG compression" in words.first(known)[0] and "Noise" not in words.first(known)[0]


def test_a_leak_is_named_by_its_images_and_without_anything_severe_that_is_said(audit):
    leak = Finding(PROBES["patients"], "severe", images=40, detail={"patients": 20})
    with_leak = replace(audit, findings=tuple(sorted([*audit.findings, leak], key=_rank)))
    assert words.first(with_leak)[0].startswith(
        "Most likely at fault: Patients in two splits, 40 images; Noise"
    )
    quiet = replace(audit, findings=(found("exposure", 0.58, "warning"),))
    nothing, look = words.first(quiet)
    assert "no proof" in nothing and look.startswith("Look first at the warning “Exposure”.")
    assert len(words.first(replace(audit, findings=()))) == 1


@pytest.mark.parametrize(
    ("finding", "why"),
    [
        (found("exposure", 0.61, "warning"), "because the lower limit of its AUC is below 0.60."),
        (found("exposure", 0.8, "warning", share=0.2), "because it reaches less than a quarter"),
        (found("file_size", 0.8, "warning"), "because it may be medicine."),
        (found("source", 0.8, "warning"), "because pixels do not show it."),
        (found("exposure", 0.8, "warning", explained_by="texture", left=0.52), "another finding explains"),
        (found("exposure", 0.8, "warning", explained_by="texture", left=0.6), "another finding may explain"),
        (Finding(PROBES["duplicate_labels"], "warning", images=1), "fewer than one in a hundred"),
        (Finding(PROBES["printed_text"], "warning", images=1, detail={"files": ["a"]}), "name a patient"),
    ],
)  # fmt: skip
def test_a_warning_says_which_rule_keeps_it_from_being_severe(finding, why):
    assert why in words.why_warning(finding) and words.why_warning(replace(finding, severity="severe")) == ""


def test_a_column_that_is_the_label_says_so():
    column = Finding(column_probe("report"), "warning", Estimate(1.0, 0.99, 1.0), 0.0005, 0.01, 1.0,
                     detail={"disguise": True})  # fmt: skip
    assert words.why_warning(column).endswith("because it may be the label in other words.")


def test_the_smallest_p_is_named_only_where_no_draw_was_as_good():
    floor = 1 / 1000
    assert words.smallest_p([(floor, 0.026), (floor, 0.026), (0.2, 1.0)], 999) == 0.026
    assert words.smallest_p([(floor, 0.026), (0.2, 1.0)], 999) is None  # one alone needs no explaining
    assert words.smallest_p([(2 / 1000, 0.026), (2 / 1000, 0.026)], 999) is None
    assert words.smallest_p([(None, None)], 999) is None


def test_a_network_cannot_see_a_fact_of_the_file(audit):
    size = asked(found("file_size", 0.9), {"net": 0.001})
    said = " ".join(words.verdict_on(replace(audit, attributes=(size,)), "net"))
    assert "Its scores follow 1 of the 1 attributes" in said
    assert "A network cannot see “Bytes a file”: it sees what goes along with it." in said
    assert "cannot see" not in " ".join(words.verdict_on(audit, "net"))


def test_the_worst_group_and_copies_are_said_in_words(audit):
    assert (
        "net, specificity 0.800 (0.700–0.900) among the 30 healthy images that in “Noise, sharpness and "
        "resampling” are more like the healthy than the ill" in page(audit, None)
    )
    copies = "4 images form 2 pairs of one picture; in 1 pair both images are identical."
    assert sentence(audit["duplicates"]) == copies


def test_how_the_table_was_read_is_not_among_what_was_not_checked(audit):
    read = {"age": {"read_as": "numbers", "values": 9, "lost": 1, "examples": ["x"]}}
    lost, unknown = words.read(FACTS | {"columns": read})[1], "No split was given."
    html = page(replace(audit, facts=FACTS | {"columns": read}, limits=(unknown, lost)), None)
    table, unchecked = html.index("How the table was read"), html.index("What was not checked")
    assert table < html.index("Columns were read so") < unchecked < html.index(unknown)
    assert html.count("are lost: ") == 1 and html.index("are lost: ") < unchecked


@pytest.mark.parametrize(
    ("name", "text"),
    [("audit.html", "precious"), ("audit.json", '{"mine": 1}'), ("audit.html", "<title>Audit of us</title>")],
)
def test_a_strangers_file_is_not_replaced(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match="was not written by cxr audit") as error:
        spare([tmp_path / "none", tmp_path])
    assert name in error.value.message and "--out" in error.value.remedy


def test_what_an_audit_wrote_may_be_replaced(audit, tmp_path):
    write(replace(audit, attributes=(), classifiers={}), None, tmp_path, pictures=False)
    spare([tmp_path])
    assert '<meta name="generator" content="cxr audit">' in (tmp_path / "audit.html").read_text("utf-8")
