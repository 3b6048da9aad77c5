"""The figures of the chapter on errors show every estimate they are given, where it is, under its name."""

import numpy as np
import pandas as pd
import pytest
from drawing import texts
from matplotlib.colors import to_hex

from cxrlib.evaluation.metrics import Estimate
from cxrlib.evaluation.operating_points import OperatingPoint, mean_curve, predictive_values
from cxrlib.evaluation.subgroups import by_subgroup
from cxrlib.plots import errors as error_plots
from cxrlib.plots.style import BLUE, VERMILLION

pytestmark = pytest.mark.usefixtures("styled")


def some(value, n=100):
    return Estimate(value, value - 0.05, value + 0.03, n, 3)


def bars(ax):
    """(value, low, high, height) of each dot with an interval, from the top down, left to right."""
    found = []
    for container in ax.containers:
        dots, _, (intervals,) = container
        for x, y, ends in zip(*dots.get_data(), intervals.get_segments(), strict=True):
            low, high = ends[:, 0] if len(ends) else (x, x)
            found.append((float(x), float(low), float(high), float(y)))
    return sorted(found, key=lambda one: (-one[3], one[0]))


def line(ax, label):
    (found,) = [one for one in ax.lines if one.get_label() == label]
    return found


def legend(ax):
    return [t.get_text() for t in ax.get_legend().get_texts()]


def points(*rules):
    return {
        rule: OperatingPoint(
            rule,
            rule.title(),
            (0.5,),
            {
                f"{part}_{measure}": some(base + 0.1 * k)
                for part, base in (("val", 0.7), ("test", 0.6))
                for measure in ("sensitivity", "specificity")
            },
        )
        for k, rule in enumerate(rules)
    }


@pytest.fixture(scope="module")
def scores():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 120)
    return labels, [1 / (1 + np.exp(-rng.normal(size=120) - 2 * labels + 1)) for _ in range(2)]


def test_the_curves_are_those_given_with_their_bands_and_numbers(scores):
    roc, pr = (mean_curve(*scores, kind=kind, replicates=20) for kind in ("roc", "precision_recall"))
    numbers = {"auc": some(0.9), "average_precision": some(0.8)}
    figure = error_plots.curves(roc, pr, numbers, points("half", "youden"), prevalence=0.4)
    left, right = figure.axes
    for ax, table, label in (
        (left, roc, f"AUC {numbers['auc']}"),
        (right, pr, f"average precision {numbers['average_precision']}"),
    ):
        assert np.array_equal(line(ax, label).get_ydata(), table["y"])
        (band,) = ax.collections
        assert band.get_paths()[0].contains_point((0.5, (table["low"] + table["high"])[100] / 2))
        assert ax.get_xlabel() and ax.get_ylabel()
    assert line(right, "chance: 0.400").get_ydata() == [0.4, 0.4]
    assert {"ROC curve", "Precision–recall curve"} <= set(texts(figure))


def test_operating_points_lie_on_the_roc_plot_at_what_they_are_on_test(scores):
    roc = mean_curve(*scores, replicates=20)
    figure = error_plots.curves(
        roc, roc, {"auc": some(0.9), "average_precision": some(0.8)}, points("half", "youden")
    )
    for title, at in (("Half", (0.4, 0.6)), ("Youden", (0.3, 0.7))):
        dot = line(figure.axes[0], title)
        assert (*dot.get_xdata(), *dot.get_ydata()) == pytest.approx(at)
    assert not any(text.startswith("chance") for text in legend(figure.axes[1]))


def test_without_operating_points_the_curves_stand_alone(scores):
    roc = mean_curve(*scores, replicates=20)
    figure = error_plots.curves(roc, roc, {"auc": Estimate(0.9), "average_precision": Estimate(0.8)})
    assert len(figure.axes[0].lines) == 2 and len(figure.axes[1].lines) == 1
    assert {"AUC 0.900", "average precision 0.800"} <= set(texts(figure))


def test_thresholds_are_shown_on_validation_above_test(scores):
    values = predictive_values(*scores, (0.5, 0.5), np.geomspace(0.001, 0.5, 20), replicates=20)
    figure = error_plots.operating_points(points("half", "youden"), values, {"screening": 0.005})
    for ax in figure.axes[:2]:
        assert bars(ax) == [
            pytest.approx(row)
            for row in (
                (0.7, 0.65, 0.73, 1.14), (0.6, 0.55, 0.63, 0.86),
                (0.8, 0.75, 0.83, 0.14), (0.7, 0.65, 0.73, -0.14),
            )
        ]  # fmt: skip
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["Half", "Youden"]
    assert legend(figure.axes[1]) == ["validation", "test"]
    assert {"Sensitivity", "Specificity", "What an answer is worth"} <= set(texts(figure))


def test_predictive_values_are_drawn_over_the_prevalence_and_settings_marked(scores):
    values = predictive_values(*scores, (0.5, 0.5), np.geomspace(0.001, 0.5, 20), replicates=20)
    figure = error_plots.operating_points(points("half"), values, {"screening": 0.005, "emergency": 0.16})
    ax = figure.axes[2]
    assert np.array_equal(line(ax, "ill, of those alarmed (PPV)").get_ydata(), values["ppv"])
    assert np.array_equal(line(ax, "healthy, of those cleared (NPV)").get_ydata(), values["npv"])
    assert [one.get_xdata()[0] for one in ax.lines[2:]] == [0.005, 0.16]
    assert {"screening 0.5%", "emergency 16.0%"} <= set(texts(figure))
    assert ax.get_xscale() == "log" and ax.get_xlim() == pytest.approx((0.001, 0.5))


def diagram(shift=0.0):
    p = np.array([0.2, 0.5, 0.8])
    return pd.DataFrame(
        {"probability": p, "frequency": p + shift, "low": p + shift - 0.1, "high": p + shift + 0.05, "n": 10}
    )


def test_reliability_diagrams_stand_side_by_side_at_the_frequencies_given():
    errors = {"ece": some(0.1), "ece_floor": Estimate(0.03, 0.02, 0.04)}
    figure = error_plots.calibration(
        {"as trained": diagram(0.1), "temperature": diagram()},
        {"as trained": errors, "temperature": errors | {"ece": some(0.05)}},
    )
    left, right = figure.axes
    for container, shift, aside in zip(left.containers, (0.1, 0), (-0.003, 0.003), strict=True):
        dots, _, (intervals,) = container
        assert dots.get_ydata() == pytest.approx(diagram(shift)["frequency"])
        assert dots.get_xdata() == pytest.approx(diagram()["probability"] + aside)
        assert intervals.get_segments()[0][:, 1] == pytest.approx([0.1 + shift, 0.25 + shift])
    assert legend(left) == ["calibrated", "as trained", "temperature"]
    assert [row[0] for row in bars(right)] == [0.1, 0.05]
    floors = [one for one in right.lines if one.get_linewidth() == 7]
    assert [tuple(one.get_xdata()) for one in floors] == [(0.02, 0.04)] * 2
    assert legend(right) == ["if calibrated: 95% of draws"]
    assert {"0.100 (0.050–0.130)", "Reliability diagram"} <= set(texts(figure))


def group_table(**gaps):
    """Two divisions of two groups, one measure; the gap of each group is 0 ± 0.1 unless it is given."""
    rows = []
    for k, (division, group) in enumerate(
        [("sex", "F"), ("sex", "M"), ("age_band", "0–17"), ("subtype", "viral")]
    ):
        gap = gaps.get(group, 0.0)
        rows.append(
            {"division": division, "group": group, "measure": "auc", "value": 0.6 + 0.1 * k}
            | {"low": 0.55 + 0.1 * k, "high": 0.65 + 0.1 * k, "n": 1000 + k, "positives": 40 + k}
            | {"gap": gap, "gap_low": gap - 0.1, "gap_high": gap + 0.1}
        )
    return pd.DataFrame(rows)


def test_every_subgroup_has_a_dot_and_the_number_behind_it():
    figure = error_plots.subgroups(group_table(), {"auc": 0.77}, "By group")
    (ax,) = figure.axes
    assert [row[:3] for row in bars(ax)] == [
        pytest.approx((0.6 + 0.1 * k, 0.55 + 0.1 * k, 0.65 + 0.1 * k)) for k in range(4)
    ]
    assert [t.get_text() for t in ax.get_yticklabels()] == [
        "sex: F (n = 1,000)", "sex: M (n = 1,001)", "age band: 0–17 (n = 1,002)", "subtype: viral (43 ill)",
    ]  # fmt: skip
    heights = ax.get_yticks()
    assert heights[0] - heights[1] < heights[1] - heights[2]  # divisions stand apart
    assert [one.get_xdata()[0] for one in ax.lines if one.get_linestyle() == ":"] == [0.77]
    assert {"AUC", "By group", "all", "does not"} <= set(texts(figure))


@pytest.mark.parametrize(("gap", "marked"), [(0.2, True), (-0.2, True), (0.05, False), (np.nan, False)])
def test_a_group_is_marked_where_the_interval_of_its_gap_leaves_out_zero(gap, marked):
    (ax,) = error_plots.subgroups(group_table(M=gap)).axes
    colours = [to_hex(container[0].get_color()).upper() for container in ax.containers]
    assert colours == [BLUE, VERMILLION if marked else BLUE, BLUE, BLUE]
    assert "all" not in texts(ax.figure)


def test_a_group_too_small_for_an_interval_is_a_dot_alone():
    table = group_table()
    table.loc[1, ["low", "high", "gap_low", "gap_high", "gap"]] = np.nan
    figure = error_plots.subgroups(table)
    assert bars(figure.axes[0])[1][:3] == pytest.approx((0.7, 0.7, 0.7))
    assert "sex: M (n = 1,001)" in texts(figure)


def test_subgroups_of_a_cohort_have_a_panel_a_measure(scores):
    labels, rows = scores
    groups = pd.DataFrame({"view": np.where(np.arange(120) % 3, "PA", "$A_P$")})
    table = by_subgroup(labels, rows, groups, replicates=20)
    figure = error_plots.subgroups(table, {"auc": 0.9})
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["AUC", "Sensitivity", "Specificity"]
    for ax, measure in zip(figure.axes, ("auc", "sensitivity", "specificity"), strict=True):
        assert [row[0] for row in bars(ax)] == pytest.approx(table.loc[table["measure"] == measure, "value"])
    assert any(text.startswith(r"view: \$A_P\$") for text in texts(figure))  # names, no formulae


def suspicions(*prefixes):
    return {
        f"{prefix}{key}": some(value, n)
        for prefix in prefixes
        for key, value, n in (("precision", 0.6, 20), ("unsuspected", 0.1, 1980), ("base", 0.2, 2000))
    }


def test_suspects_are_shown_against_the_others_with_their_counts():
    numbers = suspicions("", "label_0.", "label_1.")
    ax = error_plots.suspicion(numbers, ("healthy", "ill"), "Planted")
    assert [t.get_text() for t in ax.get_yticklabels()] == [
        "all labels",
        "label says healthy",
        "label says ill",
    ]
    assert [row[0] for row in bars(ax)] == [0.6, 0.1] * 3
    assert line(ax, "all of the row").get_xdata() == pytest.approx([0.2] * 3)
    said = texts(ax.figure)
    assert said.count("60% of 20") == 3 and said.count("10% of 1,980") == 3 and "Planted" in said


def test_a_row_without_suspects_keeps_its_other_dot():
    numbers = suspicions("", "label_1.")
    del numbers["label_1.precision"]
    ax = error_plots.suspicion(numbers)
    assert [(row[0], row[3]) for row in bars(ax)] == [(0.6, 1.16), (0.1, 0.84), (0.1, -0.16)]
    assert "label says no" not in texts(ax.figure) and "label says yes" in texts(ax.figure)


def test_where_nothing_is_suspected_the_share_of_the_others_is_shown():
    numbers = suspicions("")
    del numbers["precision"]
    ax = error_plots.suspicion(numbers)
    assert [row[0] for row in bars(ax)] == [0.1]
    assert "How often the label is wrong" in texts(ax.figure)


def cascade(*methods):
    return pd.DataFrame(
        {"method": method, "step": step, "correlation": c, "low": c - 0.1, "high": c + 0.1}
        for method in methods
        for step, c in ((0, 0.3), (1, 0.8), (2, 0.2))
    )


def test_shares_of_attribution_stand_beside_the_share_of_area():
    share = {
        region: {
            m: {"share": some(s), "area": some(area)} for m, s in (("grad_cam", 0.5), ("occlusion", 0.7))
        }
        for region, area in (("lesion", 0.1), ("lungs", 0.4))
    }
    figure = error_plots.attribution(share, cascade("grad_cam", "occlusion"))
    ax = figure.axes[0]
    assert [row[0] for row in bars(ax)] == [0.5, 0.7] * 2
    assert [tuple(one.get_xdata()) for one in ax.lines if len(one.get_xdata()) == 2] == [
        (0.1, 0.1),
        (0.4, 0.4),
    ]
    assert sorted(legend(ax)) == ["Grad-CAM", "occlusion", "share of the image's area"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["lesion", "lungs"]
    assert {"Where the attribution lies", "Maps while the weights turn to noise"} <= set(texts(figure))


def test_randomisation_starts_from_the_trained_network_and_another_images_map_is_a_level():
    share = {"lungs": {"grad_cam": {"share": Estimate(0.5), "area": Estimate(0.4)}}}
    ax = error_plots.attribution(share, cascade("grad_cam")).axes[1]
    drawn = line(ax, "Grad-CAM")
    assert drawn.get_xdata() == pytest.approx([0, 1, 2]) and drawn.get_ydata() == pytest.approx([1, 0.8, 0.2])
    assert line(ax, "Grad-CAM: another image's map").get_ydata() == [0.3, 0.3]
    assert ax.get_xlabel().endswith("(of 2)")


def test_heat_maps_show_positive_attribution_over_each_image():
    images = np.full((2, 8, 8), 100, np.uint8)
    maps = np.zeros((2, 8, 8))
    maps[0, 2, 2], maps[0, 5, 5] = 3.0, -5.0  # the second map is nothing but zeros
    lesions = np.zeros((2, 8, 8), np.uint8)
    lesions[1, 3:6, 3:6] = 1
    figure = error_plots.heat_maps(images, {"grad_cam": maps, "mine": maps}, lesions, ["p = $1", "p = 0.2"])
    *axes, scale = figure.axes
    assert len(axes) == 3 * 2 and "map's highest" in scale.get_ylabel()
    assert [len(ax.images) for ax in axes] == [1, 1, 2, 2, 2, 2]
    heat = axes[2].images[1].get_array()
    assert heat[2, 2] == 1 and heat[5, 5] == 0 and heat.sum() == 1
    assert not axes[3].images[1].get_array().any()
    assert [len(ax.collections) for ax in axes] == [0, 1] * 3
    assert [ax.get_ylabel() for ax in axes[::2]] == ["image", "Grad-CAM", "mine"]
    assert {r"p = \$1", "p = 0.2"} <= set(texts(figure))


def test_heat_maps_need_neither_outlines_nor_titles():
    figure = error_plots.heat_maps(np.zeros((1, 8, 8), np.uint8), {"occlusion": np.ones((1, 8, 8))})
    scale = figure.axes[-1]
    own = {scale.get_ylabel(), *(one.get_text() for one in scale.get_yticklabels())}
    assert [text for text in texts(figure) if text not in own] == ["image", "occlusion"]


PAIRS = ("all", "PA", "AP", "same_view", "AP_with_PA_without", "PA_with_AP_without")


def test_pairs_by_view_and_findings_by_gap():
    numbers = {f"{key}.auc": some(0.6 + 0.01 * k) for k, key in enumerate(PAIRS)} | {"PA.share": some(0.25)}
    findings = pd.DataFrame(
        {
            "PA": [0.7, 0.8], "PA_low": [0.6, np.nan], "PA_high": [0.75, np.nan], "PA_positives": [1234, 3],
            "AP": [0.6, 0.9], "AP_low": [0.5, 0.8], "AP_high": [0.7, 0.95], "AP_positives": [56, 7],
            "gap": [0.1, -0.1],
        },
        index=["Pleural_Thickening", "Hernia"],
    )  # fmt: skip
    figure = error_plots.chexnet(numbers, findings, "Oedema")
    left, right = figure.axes
    assert [row[0] for row in bars(left)] == pytest.approx([0.6 + 0.01 * k for k in range(6)])
    assert [t.get_text() for t in right.get_yticklabels()] == [
        "hernia (3, 7)",
        "pleural thickening (1,234, 56)",
    ]
    assert [row[0] for row in bars(right)] == [0.7, 0.6, 0.8, 0.9]
    assert legend(right) == ["PA", "AP"]
    said = texts(figure)
    assert {"0.600 (0.550–0.630)", "0.610 (0.560–0.640)\n25% of the pairs"} <= set(said)
    assert {"Oedema: AUC by the pair's views", "Every finding, by view"} <= set(said)


def test_an_estimate_without_an_interval_is_a_dot_without_a_bar():
    numbers = {f"{key}.auc": Estimate(0.6) for key in PAIRS}
    findings = pd.DataFrame(
        {
            f"{view}{what}": [0.7]
            for view in ("PA", "AP")
            for what in ("", "_low", "_high", "_positives")
        } | {"gap": [0.0]},
        index=["Mass"],
    )  # fmt: skip
    figure = error_plots.chexnet(numbers, findings)
    assert {row[:3] for row in bars(figure.axes[0])} == {(0.6, 0.6, 0.6)}
    assert texts(figure).count("0.600") == 6
