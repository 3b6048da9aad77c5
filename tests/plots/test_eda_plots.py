"""The figures of 01_eda draw the tables they are given, and keep every row of them in view."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from drawing import texts

from cxrlib.evaluation import eda
from cxrlib.plots import eda as eda_plots

pytestmark = pytest.mark.usefixtures("styled")


def legend(ax):
    return [t.get_text() for t in ax.get_legend().get_texts()]


def bars(container):
    """(value, low, high) of each point with an error bar; either direction."""
    return [tuple(ends.T[int(np.ptp(ends[:, 1]) > 0)]) for ends in container[2][0].get_segments()]


def per_patient(sizes):
    sizes = pd.Series(sizes)
    return eda_plots.images_per_patient(sizes, eda.concentration(sizes))


def test_images_a_patient_are_shares_of_patients_and_of_images():
    ax = per_patient([1, 1, 3, 5])
    patients, images = ([bar.get_height() for bar in container] for container in ax.containers)
    assert patients[:4] == [0.5, 0, 0.25, 0.25]
    assert images[:4] == pytest.approx([0.2, 0, 0.3, 0.5])
    assert legend(ax) == ["of patients", "of images"]
    assert {"3–4", "129+", "Share of images held by the busiest"} <= set(texts(ax))


@pytest.mark.parametrize("most", [1, 128, 129, 256, 257, 4000])
def test_no_patient_has_too_many_images_to_be_counted(most):
    for container in per_patient([1, 1, most]).containers:
        assert sum(bar.get_height() for bar in container) == pytest.approx(1)


def test_the_busiest_tenth_is_marked_on_the_curve():
    ax = per_patient([1] * 9 + [91])
    curve = ax.figure.axes[1]
    (dot,) = [line for line in curve.lines if line.get_marker() == "o"]
    assert (*dot.get_xdata(), *dot.get_ydata()) == pytest.approx((0.1, 0.91))
    assert "busiest tenth: 91% of the images" in legend(curve)


def test_ages_are_shares_within_each_view():
    table = pd.DataFrame({"view": ["PA"] * 4 + ["AP"] * 2, "age": [30, 30, 30.9, 60, 99, np.nan]})
    ax = eda_plots.ages(table)
    pa, ap = (np.asarray(line.get_ydata()) for line in ax.lines)
    assert (pa[30], pa[60], ap[99]) == (0.75, 0.25, 1) and pa.sum() == ap.sum() == 1
    assert legend(ax) == ["PA (n = 4)", "AP (n = 1)"]
    assert {"Age at the image", "age (years)"} <= set(texts(ax))


def test_a_view_without_images_is_a_line_at_zero():
    ax = eda_plots.ages(pd.DataFrame({"view": ["PA"], "age": [50]}))
    assert not ax.lines[1].get_ydata().any()
    assert "AP (n = 0)" in texts(ax)


def groups(share, by_patient=True):
    share = np.array(share)
    wide = 0.04 if by_patient else 0.02
    return pd.DataFrame(
        {"prevalence": share, "images": 1000 + np.arange(len(share))}
        | {"low": share - wide, "high": share + wide}
        | {"wilson_low": share - 0.02, "wilson_high": share + 0.02},
        index=["F", "M"][: len(share)],
    )


def test_prevalence_has_a_dot_and_two_intervals_a_group():
    ax = eda_plots.prevalence(groups([0.2, 0.3]), "By sex", "sex", overall=0.25)
    assert ax.lines[0].get_ydata().tolist() == [0.2, 0.3]
    by_image, by_patient = (bars(container) for container in ax.containers)
    assert by_image == [pytest.approx((0.18, 0.22)), pytest.approx((0.28, 0.32))]
    assert by_patient == [pytest.approx((0.16, 0.24)), pytest.approx((0.26, 0.34))]
    assert legend(ax) == ["all images: 25.0%", "95%, by image", "95%, by patient"]
    assert {"F\n(1,000)", "M\n(1,001)", "By sex", "sex (number of images)", "20%"} <= set(texts(ax))


def test_where_patients_were_not_resampled_there_is_one_interval():
    ax = eda_plots.prevalence(groups([0.2, 0.3], by_patient=False), "By sex", "sex")
    assert legend(ax) == ["95%, by image"]
    assert len(ax.containers) == 1


def test_the_prevalence_of_one_rare_group_is_read_in_tenths_of_a_percent():
    ax = eda_plots.prevalence(groups([0.05]), "One", "sex")
    assert ax.get_ylim()[0] == 0 and ax.get_xlim() == (-0.5, 0.5)
    assert all("." in label for label in texts(ax) if label.endswith("%"))


def agreement(kappa):
    rows = {"opacity": 0.6, "mass": kappa}
    table = pd.DataFrame({"prevalence": [0.3, 0.1]}, index=list(rows))
    for measure, values in {
        "sensitivity": [0.8, 1.0],
        "ppv": [0.7, 0.5],
        "kappa": list(rows.values()),
    }.items():
        table[measure] = values
        table[f"{measure}_low"], table[f"{measure}_high"] = table[measure] - 0.1, table[measure] + 0.05
    return table


def test_agreement_has_a_panel_a_measure_and_a_row_a_label():
    axes = eda_plots.agreement(agreement(0.2)).figure.axes
    for ax, measure in zip(axes, ("sensitivity", "ppv", "kappa"), strict=True):
        dots, _, (intervals,) = ax.containers[0]
        expected = agreement(0.2)
        assert dots.get_xdata().tolist() == expected[measure].tolist()
        assert dots.get_ydata().tolist() == [1, 0]
        assert intervals.get_segments()[0][:, 0] == pytest.approx(
            expected[[f"{measure}_low", f"{measure}_high"]].iloc[0]
        )
    chance = [line for line in axes[1].lines if line.get_marker() == "|" and line.get_markersize() == 14]
    assert [line.get_xdata().tolist() for line in chance] == [[0.3, 0.1]]
    assert [t.get_text() for t in axes[0].get_yticklabels()] == ["opacity", "mass"]
    assert {"Sensitivity", "Positive predictive value\n(bar: by chance)", "Cohen's kappa"} <= set(
        texts(axes[0])
    )


def test_agreement_worse_than_chance_is_in_view():
    axes = eda_plots.agreement(agreement(-0.3)).figure.axes
    assert axes[2].get_xlim()[0] < -0.4 and axes[0].get_xlim()[0] == pytest.approx(-0.02)


def test_an_agreement_that_is_undefined_leaves_its_place_empty():
    table = agreement(0.2)
    table.loc["mass", ["ppv", "ppv_low", "ppv_high"]] = np.nan
    ax = eda_plots.agreement(table)
    assert ax.figure.axes[1].get_xlim() == pytest.approx((-0.02, 1))
    assert "mass" in texts(ax)


def test_class_means_are_shown_with_their_difference_about_zero():
    without, with_label = np.full((8, 8), 90.0), np.full((8, 8), 140.0)
    effect = np.zeros((8, 8))
    effect[2, 2] = -1.5
    ax = eda_plots.class_means(without, with_label, effect)
    shown = [one.images[0] for one in ax.figure.axes[:3]]
    for image, expected in zip(shown, (without, with_label, effect), strict=True):
        assert np.array_equal(image.get_array(), expected)
    assert [image.get_clim() for image in shown] == [(0, 255), (0, 255), (-1.5, 1.5)]
    assert {"Mean without", "Mean with pneumonia", "Difference", "standard deviations"} <= set(texts(ax))


def test_classes_that_do_not_differ_are_not_blown_up():
    flat = np.zeros((4, 4))
    ax = eda_plots.class_means(flat, flat, flat + 1e-4)
    assert ax.figure.axes[2].images[0].get_clim() == (-0.05, 0.05)


DRAWN = {
    "ages": (pd.DataFrame({"view": ["PA", "AP"], "age": [50, 60]}),),
    "prevalence": (groups([0.2, 0.3]), "By sex", "sex"),
}


@pytest.mark.parametrize("name", DRAWN)
def test_drawing_on_a_given_axis_opens_no_figure(name):
    figure, ax = plt.subplots()
    assert getattr(eda_plots, name)(*DRAWN[name], ax=ax) is ax
    assert plt.get_fignums() == [figure.number]


def test_panels_can_be_given_too():
    figure, axes = plt.subplots(1, 5)
    assert eda_plots.agreement(agreement(0.2), axes[:3]) is axes[0]
    sizes = pd.Series([1, 2])
    assert eda_plots.images_per_patient(sizes, eda.concentration(sizes), axes[3:]) is axes[3]
    assert plt.get_fignums() == [figure.number]
