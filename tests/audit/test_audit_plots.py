"""The audit's figures show each probe, and each planted confounder, at the numbers that were found."""

import json

import pytest
from drawing import texts
from matplotlib.colors import to_hex

from cxrlib.audit import plots as audit_plots
from cxrlib.audit.probes import Finding
from cxrlib.audit.rules import PROBES
from cxrlib.audit.run import Audit
from cxrlib.evaluation.metrics import Estimate
from cxrlib.evaluation.results import Record

pytestmark = pytest.mark.usefixtures("styled")


def audit(*found):
    return Audit(tuple(Finding(PROBES[name], severity, auc) for name, severity, auc in found), {}, (), {})


AUCS = (
    ("marker", "severe", Estimate(0.85, 0.8, 0.9)),
    ("duplicates", "warning", None),
    ("corners", "warning", Estimate(0.35, 0.3, 0.4)),
    ("whole", "fine", Estimate(0.7)),
)


def test_every_probe_with_an_auc_has_a_row_the_worst_on_top():
    figure = audit_plots.scorecard(audit(*AUCS))
    (ax,) = figure.axes
    assert [t.get_text() for t in ax.get_yticklabels()] == [
        PROBES[name].title for name in ("whole", "corners", "marker")
    ]
    rows = [line for line in ax.lines if line.get_ydata()[0] == line.get_ydata()[-1]]
    spans, dots = rows[::2], rows[1::2]
    assert [tuple(line.get_xdata()) for line in spans] == [(0.7, 0.7), (0.3, 0.4), (0.8, 0.9)]
    assert [line.get_xdata()[0] for line in dots] == [0.7, 0.35, 0.85]
    looks = [audit_plots.LOOKS[severity][:2] for severity in ("fine", "warning", "severe")]
    assert [(to_hex(dot.get_color()).upper(), dot.get_marker()) for dot in dots] == looks
    assert {" whole image", "severe", "warning", "fine"} <= set(texts(figure))


def test_the_scorecard_is_drawn_down_to_the_lowest_auc_and_marks_chance_and_the_whole_image():
    (ax,) = audit_plots.scorecard(audit(*AUCS)).axes
    assert ax.get_xlim()[0] < 0.3 and ax.get_xlim()[1] == 1
    upright = [line.get_xdata()[0] for line in ax.lines if list(line.get_ydata()) == [0, 1]]
    assert upright == [0.5, 0.7]


def record_of(measures=("found_share", "flagged_share")):
    numbers = {"clean.false_alarms": Estimate(1)}
    for k, name in enumerate(audit_plots.CONFOUNDERS):
        for at, share in ((".agreement_100", 1.0), (".agreement_55", 0.1), ("", 0.5)):
            value = share - 0.01 * k
            for measure in measures:
                numbers[f"{name}{at}.{measure}"] = Estimate(value, max(value - 0.1, 0), min(value + 0.1, 1))
    return Record("audit", numbers, {}, None)


def test_every_confounder_has_a_panel_with_its_shares_by_agreement():
    figure = audit_plots.detection(record_of())
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "lead letter", "burned-in text", "collimation", "exposure", "devices", "projection",
    ]  # fmt: skip
    for k, ax in enumerate(figure.axes):
        for line in ax.lines:
            assert line.get_xdata() == pytest.approx([0.55, 0.9, 1.0])
            assert line.get_ydata() == pytest.approx([0.1 - 0.01 * k, 0.5 - 0.01 * k, 1 - 0.01 * k])
        assert len(ax.lines) == 2
        (band,) = ax.collections
        heights = band.get_paths()[0].vertices[:, 1]
        assert (heights.min(), heights.max()) == pytest.approx((0, 1))
    said = texts(figure)
    assert {"severe (band: 95%)", "severe or warning", "agreement with the label", "cohorts"} <= set(said)


def test_what_was_not_counted_is_not_drawn():
    figure = audit_plots.detection(record_of(("found_share",)))
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [3, 0]
    texts(figure)


def test_a_share_without_an_interval_has_a_band_of_no_width():
    numbers = {f"{name}.found_share": Estimate(0.5) for name in audit_plots.CONFOUNDERS}
    figure = audit_plots.detection(Record("audit", numbers, {}, None))
    (band,) = figure.axes[0].collections
    assert set(band.get_paths()[0].vertices[:, 1]) == {0.5}
    texts(figure)


def test_the_benchmark_is_that_of_the_checkout_and_none_without_one(tmp_path, monkeypatch):
    monkeypatch.setattr(audit_plots, "project_root", lambda: tmp_path)
    assert audit_plots.benchmark() is None
    (tmp_path / "benchmarks").mkdir()
    kept = {"schema": 1, "name": "audit", "numbers": {"marker.found_share": {"value": 0.4}}}
    (tmp_path / "benchmarks" / "audit.json").write_text(json.dumps(kept))
    assert audit_plots.detected(audit_plots.benchmark(), "marker") == [(0.9, Estimate(0.4))]
    monkeypatch.setattr(audit_plots, "project_root", lambda: None)
    assert audit_plots.benchmark() is None


def test_the_committed_benchmark_has_every_confounder():
    record = audit_plots.benchmark()
    assert all(len(audit_plots.detected(record, name)) > 3 for name in audit_plots.CONFOUNDERS)
    texts(audit_plots.detection(record))
