"""Figures show the numbers they were given, can be told apart without colour, and no text covers another."""

import io
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from cxrlib.errors import DataError
from cxrlib.evaluation.metrics import Estimate, auc, bootstrap
from cxrlib.plots import common as plots
from cxrlib.plots.training import network_comparison

pytestmark = pytest.mark.usefixtures("styled")


def predictions(n=300, prevalence=0.6, shift=2.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < prevalence).astype(int)
    return labels, rng.normal(size=n) + shift * labels, rng.integers(0, n // 2, n)


def history(seed=0):
    rng = np.random.default_rng(seed)
    epoch = np.arange(1, 9) / 2
    return pd.DataFrame(
        {
            "epoch": epoch,
            "train_loss": np.exp(-epoch),
            "val_loss": np.exp(-epoch) + 0.1 * epoch + rng.normal(0, 0.01, 8),
            "train_auc": 1 - np.exp(-epoch) / 2,
            "val_auc": 0.95 - np.exp(-epoch) / 2,
        }
    )


ROWS = {
    "view only": Estimate(0.61, 0.59, 0.63),
    "border pixels": Estimate(0.66, 0.63, 0.69),
    "whole image": Estimate(0.762, 0.74, 0.781),
}


def draw_rocs():
    ax = None
    for name, shift in (("residual", 4), ("lenet", 2), ("double_conv", 1)):
        ax = plots.roc(*predictions(shift=shift), ax, label=name, replicates=30)
    return ax


def draw_networks():
    names = ("lenet", "double_conv", "residual")
    numbers = {
        f"{name}.test_{metric}": Estimate(0.9 + 0.03 * i, 0.88 + 0.03 * i, 0.92 + 0.03 * i)
        for i, name in enumerate(names)
        for metric in ("auc", "accuracy")
    }
    return network_comparison({name: [history(i)] for i, name in enumerate(names)}, numbers).axes


FIGURES = {
    "training_curves": lambda: plots.training_curves(history(), title="LeNet"),
    "training_curves of three": lambda: plots.training_curves([history(i) for i in range(3)]),
    "roc": lambda: plots.roc(*predictions(), threshold=1.0, replicates=30),
    "rocs": draw_rocs,
    "precision_recall": lambda: plots.precision_recall(*predictions(), threshold=1.0, replicates=30),
    "precision_recall, rare": lambda: plots.precision_recall(
        *predictions(2000, 0.02, 1.0), label="residual", replicates=30
    ),
    "intervals": lambda: plots.intervals(ROWS, title="What predicts the label", references={"chance": 0.5}),
    "image_grid": lambda: plots.image_grid(
        np.zeros((5, 32, 32), np.uint8), [f"image {i}" for i in range(5)], columns=3, title="Five"
    ),
    "network_comparison": draw_networks,
}


def test_a_network_whose_numbers_have_no_interval_is_drawn_as_dots():
    numbers = {"lenet.test_auc": Estimate(0.9), "lenet.test_accuracy": Estimate(0.8)}
    figure = network_comparison({"lenet": [history()]}, numbers)
    figure.canvas.draw()
    assert [ax.lines[0].get_xdata()[0] for ax in figure.axes[2:4]] == [0.9, 0.8]


def test_networks_are_drawn_as_the_mean_over_seeds_and_the_range_of_validation():
    runs = [history(0), history(1)]
    numbers = {"lenet.test_auc": Estimate(0.9), "lenet.test_accuracy": Estimate(0.8)}
    (ax, *_) = network_comparison({"lenet": runs}, numbers).axes
    trained, validated = (np.asarray(line.get_ydata()) for line in ax.lines[:2])
    np.testing.assert_allclose(trained, np.mean([run["train_loss"] for run in runs], axis=0))
    np.testing.assert_allclose(validated, np.mean([run["val_loss"] for run in runs], axis=0))
    (band,) = ax.collections
    high = np.max([run["val_loss"] for run in runs])
    assert band.get_paths()[0].get_extents().ymax == pytest.approx(high)


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_covers_another(name):
    axes = FIGURES[name]()
    figure = np.atleast_1d(axes).flat[0].figure
    figure.canvas.draw()
    texts = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    texts += [figure._suptitle] if figure._suptitle else []
    for ax in figure.axes:
        texts += [ax.title, ax._left_title, *ax.texts]
        texts += ax.get_legend().get_texts() if ax.get_legend() else []
        for axis in (ax.xaxis, ax.yaxis) if ax.axison else ():
            low, high = sorted(axis.get_view_interval())
            texts += [axis.label]
            texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    upright = {
        text: text.get_window_extent().shrunk(0.98, 0.9)
        for text in texts
        if text.get_visible() and text.get_text().strip() and text.get_rotation() in (0, 90)
    }
    assert len(upright) > 2
    for (one, a), (other, b) in combinations(upright.items(), 2):
        assert not a.overlaps(b), f"{one.get_text()!r} and {other.get_text()!r}"


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_labelled(name):
    for ax in np.atleast_1d(FIGURES[name]()).flat:
        if not ax.axison:
            continue
        assert ax.get_xlabel()
        if name not in ("roc", "intervals"):
            assert ax.get_title() or ax.get_title(loc="left") or ax.get_title(loc="center")


def test_drawing_on_a_given_axis_opens_no_figure():
    figure, axes = plt.subplots(1, 2)
    assert plots.roc(*predictions(), axes[0], replicates=20) is axes[0]
    plots.intervals(ROWS, axes[1])
    plots.training_curves(history(), axes)
    assert plt.get_fignums() == [figure.number]


def test_the_roc_curve_carries_its_auc_and_interval():
    labels, scores, patients = predictions()
    ax = plots.roc(labels, scores, patients, replicates=50)
    expected = bootstrap(labels, scores, patients, ("auc",), replicates=50)["auc"]
    assert f"AUC {expected}" in [text.get_text() for text in ax.get_legend().get_texts()]
    (curve,) = [line for line in ax.lines if line.get_gid() == "curve"]
    assert np.trapezoid(curve.get_ydata(), curve.get_xdata()) == pytest.approx(auc(labels, scores))


def test_the_marked_operating_point_is_that_of_the_threshold():
    labels, scores, patients = predictions()
    for draw, expected in (
        (plots.roc, ((scores[labels == 0] >= 1).mean(), (scores[labels == 1] >= 1).mean())),
        (plots.precision_recall, ((scores[labels == 1] >= 1).mean(), labels[scores >= 1].mean())),
    ):
        point = draw(labels, scores, patients, threshold=1.0, replicates=20).lines[-1]
        assert (point.get_xdata()[0], point.get_ydata()[0]) == pytest.approx(expected)


def test_curves_can_be_told_apart_without_colour():
    curves = [line for line in draw_rocs().lines if line.get_gid() == "curve"]
    assert len({line.get_linestyle() for line in curves}) == 3


def test_the_best_check_in_is_starred():
    run = history()
    axes = plots.training_curves(run)
    best = run.loc[run["val_loss"].idxmin()]
    for ax, column in zip(axes, ("val_loss", "val_auc"), strict=True):
        (star,) = [line for line in ax.lines if line.get_marker() == "*"]
        assert (star.get_xdata()[0], star.get_ydata()[0]) == (best["epoch"], best[column])


def test_no_history_is_an_error():
    with pytest.raises(DataError):
        plots.training_curves([])
    with pytest.raises(DataError):
        plots.training_curves(pd.DataFrame())


def test_the_first_row_is_on_top_with_its_number_beside_it():
    ax = plots.intervals(ROWS)
    heights = dict(zip([t.get_text() for t in ax.get_yticklabels()], ax.get_yticks(), strict=True))
    assert heights["view only"] > heights["whole image"]
    beside = {text.get_position()[1]: text.get_text() for text in ax.texts}
    assert beside[heights["whole image"]] == "0.762 (0.740–0.781)"


def test_an_empty_or_full_mask_has_no_outline():
    images = np.zeros((3, 16, 16), np.uint8)
    masks = np.zeros((3, 16, 16), np.uint8)
    masks[1, 4:8, 4:8] = 1
    masks[2] = 1
    axes = plots.image_grid(images, masks={"lung mask": masks})
    outlines = [sum(len(path.vertices) for c in ax.collections for path in c.get_paths()) for ax in axes.flat]
    assert outlines[0] == outlines[2] == 0
    assert outlines[1] > 0


def test_colours_differ_to_every_eye():
    """Okabe and Ito's choice, and every pair differs in brightness or in blue against yellow."""
    assert plots.COLOURS[:3] == ("#0072B2", "#D55E00", "#009E73")
    for one, other in combinations(plots.COLOURS, 2):
        (r1, g1, b1), (r2, g2, b2) = to_rgb(one), to_rgb(other)
        assert abs(0.3 * (r1 - r2) + 0.6 * (g1 - g2) + 0.1 * (b1 - b2)) > 0.04 or abs(b1 - b2) > 0.2


def test_the_paper_is_white_on_a_dark_page():
    buffer = io.BytesIO()
    plots.intervals(ROWS).figure.savefig(buffer, format="png")
    assert Image.open(buffer).convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)
