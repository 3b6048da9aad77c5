"""The figures of the chapter on overfitting draw each run they are given, and what was found of them."""

import numpy as np
import pandas as pd
import pytest
from drawing import texts
from matplotlib.colors import to_hex

from cxrlib.evaluation.metrics import Estimate
from cxrlib.plots import overfitting as overfitting_plots
from cxrlib.plots.style import BLUE, GREEN, VERMILLION
from cxrlib.studies.leakage import selection_optimism
from cxrlib.studies.overfitting import power_law_of
from cxrlib.studies.study import study_of

pytestmark = pytest.mark.usefixtures("styled")


def legend(owner):
    return [t.get_text() for t in owner.get_texts()]


def drawn(ax, colour, style=None):
    """Its lines of a colour (and a style), each as (x, y)."""
    return [
        (np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist())
        for line in ax.lines
        if to_hex(line.get_color()).upper() == colour and (style is None or line.get_linestyle() == style)
    ]


def history(seed):
    epoch = np.arange(1, 7)
    loss = np.abs(epoch - 3 - seed) + 0.1  # lowest at epoch 3 + seed
    columns = {f"{part}_{m}": 0.6 + 0.05 * epoch + 0.01 * seed for part in ("train", "val")
               for m in ("accuracy", "auc", "loss")}  # fmt: skip
    return pd.DataFrame({"epoch": epoch, "seed": seed, **columns} | {"val_loss": loss})


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_the_gap_has_two_lines_and_a_star_for_each_seed(seeds):
    tested = {"last.test_accuracy": Estimate(0.7, 0.65, 0.75)}
    figure = overfitting_plots.gap(study_of(pd.concat([history(s) for s in seeds]), tested))
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["Accuracy at ½", "AUC", "Loss"]
    for ax, metric in zip(figure.axes, ("accuracy", "auc", "loss"), strict=True):
        lines = [line for line in ax.lines if len(line.get_xdata()) == 6]
        assert len(lines) == 2 * len(seeds)
        stars = [line for line in ax.lines if line.get_marker() == "*"]
        for seed, star in zip(seeds, stars, strict=True):
            best = history(seed).set_index("epoch").loc[3 + seed]
            assert (star.get_xdata()[0], star.get_ydata()[0]) == (3 + seed, best[f"val_{metric}"])
    assert legend(figure.legends[0]) == [
        "training", "validation", "lowest validation loss", "test, last epoch"
    ]  # fmt: skip
    assert {"95%", "70.0%", "binary cross-entropy (nats)"} <= set(texts(figure))


def sizes(seeds=(0, 1), held_out=(800,)):
    rows = [
        {"size": n, "images": n + s, "seed": s, "fitted": n not in held_out}
        | {"error": 2 * n**-0.5 * (1 + 0.05 * s)}
        for n in (100, 200, 400, 800)
        for s in seeds
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_the_power_law_goes_through_its_points_and_beyond_them(seeds):
    runs = sizes(seeds)
    (ax,) = overfitting_plots.dataset_size(study_of(runs, {"power_law.b": Estimate(0.5)}), "validation").axes
    law = power_law_of(runs)
    (x, y), (beyond, there) = (np.array(both) for both in drawn(ax, "#222222"))
    assert (x[0], x[-1]) == pytest.approx((100, 400 + max(seeds)))
    assert (beyond[0], beyond[-1]) == pytest.approx((x[-1], 800 + max(seeds)))
    assert np.allclose(y, law(x)) and np.allclose(there, law(beyond))
    band = ax.collections[0].get_paths()[0].vertices
    expected = law.predict(800 + max(seeds), len(seeds))
    end = band[np.isclose(band[:, 0], band[:, 0].max()), 1]
    assert (end.min(), end.max()) == pytest.approx((expected.low, expected.high))
    said = texts(ax.figure)
    assert {"1 − AUC, validation", "training images", "100", "800"} <= set(said)
    assert legend(ax.get_legend())[2:] == [
        f"fit: {law.a:.3g} · $n^{{{-law.b:.2f}}}$", "its extrapolation, 95% interval",
    ]  # fmt: skip


def test_sizes_held_out_of_the_fit_are_drawn_apart():
    runs = sizes(held_out=(400, 800))
    (ax,) = overfitting_plots.dataset_size(study_of(runs, {"power_law.b": Estimate(0.5)})).axes
    for colour, fitted in ((BLUE, True), (VERMILLION, False)):
        some = runs[runs["fitted"] == fitted]
        (x, y), (mean_x, mean_y) = drawn(ax, colour)
        assert (x, y) == (some["images"].tolist(), some["error"].tolist())
        mean = some.groupby("size")[["images", "error"]].mean()
        assert (mean_x, mean_y) == (mean["images"].tolist(), mean["error"].tolist())
    assert ax.get_xscale() == ax.get_yscale() == "log"


def test_capacity_draws_every_run_and_the_means_by_parameters():
    runs = pd.DataFrame(
        {"parameters": p, "seed": s, "train_auc": 0.9 + s / 100, "val_auc": 0.8, "test_auc": 0.7 + s / 50}
        for p in (950, 12_300, 1_500_000)
        for s in (0, 1)
    )
    (ax,) = overfitting_plots.capacity(study_of(runs, {"a": 1.0})).axes
    for colour, column in ((BLUE, "train_auc"), (GREEN, "val_auc"), (VERMILLION, "test_auc")):
        every, mean = drawn(ax, colour)
        assert every == (runs["parameters"].tolist(), runs[column].tolist())
        assert mean[1] == pytest.approx(runs.groupby("parameters")[column].mean().tolist())
    assert legend(ax.get_legend()) == ["training", "validation", "test"]
    assert {"0.95 k", "12.3 k", "1.5 M"} <= set(texts(ax.figure))


@pytest.mark.parametrize(
    ("parameters", "text"),
    [(60, "0.06 k"), (61_706, "61.7 k"), (999_400, "999 k"), (999_999, "1.0 M"), (6_000_000, "6.0 M")],
)
def test_parameters_are_written_short(parameters, text):
    assert overfitting_plots._short(parameters) == text


def test_each_regulariser_is_compared_with_none_and_filled_where_established():
    runs = pd.DataFrame({"arm": ["none", "dropout", "weight decay"]})
    numbers, p = {}, {}
    for k, arm in enumerate(("dropout", "weight_decay")):
        for sign, measure in ((1, "test_auc_gain"), (-1, "gap_closed")):
            value = sign * (0.02 + 0.01 * k)
            numbers[f"{arm}.{measure}"] = Estimate(value, value - 0.005, value + 0.005, 50, 3)
            p[f"{arm}.{measure}"] = 0.001 + 0.5 * k
    figure = overfitting_plots.regularisers(study_of(runs, numbers, [p]))
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["Gain in test AUC", "Narrowing of the gap"]
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["dropout", "weight decay"]
    circles = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [(c.get_xdata()[0], to_hex(c.get_markerfacecolor()).upper()) for c in circles] == [
        (0.02, BLUE), (0.03, "#FFFFFF"),
    ]  # fmt: skip
    assert {"+0.020", "−0.030", "p < 0.05 after Holm", "not established"} <= set(texts(figure))


@pytest.mark.parametrize("seeds", [(4,), (4, 5)])
def test_random_labels_have_a_line_a_seed_and_one_name_a_kind(seeds):
    runs = pd.DataFrame(
        {"labels": kind, "seed": s, "step": step, "train_accuracy": min(1, 0.5 + step / slow)}
        for kind, slow in (("true", 40), ("random", 200))
        for s in seeds
        for step in (10, 20, 30)
    )
    (ax,) = overfitting_plots.random_labels(study_of(runs, {"a": 1.0})).axes
    for colour, last in ((BLUE, 1.0), (VERMILLION, 0.65)):
        found = drawn(ax, colour)
        assert len([x for x, _ in found if len(x) == 3]) == len(seeds)
        assert [(x, y) for x, y in found if len(x) == 1] == [([30], [last])] * len(seeds)
    assert [y[0] for _, y in drawn(ax, "#767676")] == [0.95, 0.99]
    assert legend(ax.get_legend()) == ["true labels", "random labels"]
    assert "Learning by heart" in texts(ax.figure)


def leak(splits=3, truth=False, interval=True):
    columns = {"test_auc": 0.9} | ({"true_auc": 0.6} if truth else {})
    runs = pd.DataFrame(
        {"split_seed": s, "arm": arm} | {name: at - 0.1 * k + 0.01 * s for name, at in columns.items()}
        for s in range(splits)
        for k, arm in enumerate(("by image", "by patient"))
    )
    numbers = {
        f"by_{arm}.{name}": Estimate(v, v - 0.05, v + 0.05) if interval else Estimate(v)
        for name, at in columns.items()
        for arm, v in (("image", at), ("patient", at - 0.1))
    }
    return study_of(runs, numbers)


def test_a_leak_is_a_pair_a_split_and_a_dot_an_arm_and_the_truth_stands_beside_where_known():
    figure = overfitting_plots.leakage({"phantoms": leak(truth=True), "children": leak()})
    known, own = figure.axes
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["phantoms", "children"]
    assert [x for x, _ in drawn(own, VERMILLION) if len(x) == 1] == [[0], [1]]
    pairs = [y for x, y in drawn(own, VERMILLION, "-") if x == [0, 1]]
    assert pairs == [pytest.approx([0.9 + 0.01 * s, 0.8 + 0.01 * s]) for s in range(3)]
    assert ([0, 0], pytest.approx([0.85, 0.95])) in drawn(own, VERMILLION, "-")
    assert not drawn(own, GREEN)
    assert [(x[0], y[0]) for x, y in drawn(known, GREEN) if len(x) == 1] == [
        pytest.approx((0.09, 0.6)), pytest.approx((1.09, 0.5)),
    ]  # fmt: skip
    assert legend(figure.legends[0]) == ["on its own test images", "on fresh patients"]
    assert {"split by image", "split by patient", "AUC"} <= set(texts(figure))


def test_one_split_has_no_interval():
    (ax,) = overfitting_plots.leakage({"one": leak(splits=1, interval=False)}).axes
    assert [x for x, _ in drawn(ax, VERMILLION)] == [[0, 1], [0], [1]]
    assert texts(ax.figure).count("on its own test images") == 1


def test_selection_shows_both_gains_by_k():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    runs = selection_optimism(labels, rng.random((6, 60)), draws=20)
    (ax,) = overfitting_plots.selection(study_of(runs, {"models": 6.0})).axes
    for colour, column in ((VERMILLION, "gain_selected"), (GREEN, "gain_fresh")):
        ((k, gain),) = drawn(ax, colour)
        assert k == [1, 2, 4, 6]
        assert gain == pytest.approx(runs.groupby("k")[column].mean().tolist())
    assert len(ax.collections) == 2
    assert legend(ax.get_legend()) == ["on the test images it was picked on", "on other images"]
    assert {"1", "2", "4", "6", "k"} <= set(texts(ax.figure))


def test_picking_from_one_network_gains_nothing():
    runs = pd.DataFrame({"draw": [0, 1], "k": 1, "gain_selected": 0.0, "gain_fresh": 0.0})
    (ax,) = overfitting_plots.selection(study_of(runs, {"models": 1.0})).axes
    assert drawn(ax, VERMILLION) == [([1], [0])]
    texts(ax.figure)
