"""Figures show the numbers they were given, can be told apart without colour, and no text covers another."""

import io
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from cxrlib import plots
from cxrlib.errors import DataError
from cxrlib.metrics import Estimate, auc, bootstrap


@pytest.fixture(autouse=True)
def styled():
    with plt.rc_context():
        plots.apply_style()
        yield
    plt.close("all")


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


def cohort_table(n=600):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "label": (rng.random(n) < 0.2).astype(int),
            "view": rng.choice(["AP", "PA"], n),
            "age_group": pd.Categorical(rng.choice(["0–19", "20–59", "60+"], n), ["0–19", "20–59", "60+"]),
            "patient_id": rng.integers(0, 150, n),
            "age": rng.uniform(0, 90, n),
        }
    )


ROWS = {
    "view only": Estimate(0.61, 0.59, 0.63),
    "border pixels": Estimate(0.66, 0.63, 0.69),
    "whole image": Estimate(0.762, 0.74, 0.781),
}
MODELS = {
    "lenet": {"auc": Estimate(0.943, 0.93, 0.95), "train_seconds": Estimate(41.0)},
    "residual": {"auc": Estimate(0.981, 0.97, 0.99), "accuracy": Estimate(0.93, 0.91, 0.95)},
}


def draw_rocs():
    ax = None
    for name, shift in (("residual", 4), ("lenet", 2), ("double_conv", 1)):
        ax = plots.roc(*predictions(shift=shift), ax, label=name, replicates=30)
    return ax


def draw_findings():
    rng = np.random.default_rng(0)
    names = ["Pneumonia", "Pleural_Thickening", "Edema", "Hernia"]
    return plots.label_cooccurrence(pd.DataFrame(rng.integers(0, 2, (50, 4)), columns=names))


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
    "scoreboard": lambda: plots.scoreboard(MODELS, references={"accuracy": {"original": 0.82}}),
    "image_grid": lambda: plots.image_grid(
        np.zeros((5, 32, 32), np.uint8), [f"image {i}" for i in range(5)], columns=3, title="Five"
    ),
    "label_cooccurrence": draw_findings,
    "counts": lambda: plots.counts(
        {"No_finding": 60_361, "Pneumonia": 1_431}, highlight="Pneumonia", title="x"
    ),
    "shares": lambda: plots.shares(cohort_table(), "age_group", "view", title="Label by age and view"),
    "stacked_shares": lambda: plots.stacked_shares(cohort_table(), "view", "age_group", title="Age by view"),
    "images_per_patient": lambda: plots.images_per_patient(cohort_table()["patient_id"]),
    "histogram": lambda: plots.histogram({"AP": np.arange(90), "PA": np.arange(40)}, xlabel="age (years)"),
}


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
        if name != "scoreboard":
            assert ax.get_xlabel()
        if name not in ("histogram", "roc", "intervals"):
            assert ax.get_title() or ax.get_title(loc="left") or ax.get_title(loc="center")


def test_drawing_on_a_given_axis_opens_no_figure():
    figure, axes = plt.subplots(1, 2)
    assert plots.roc(*predictions(), axes[0], replicates=20) is axes[0]
    plots.counts({"a": 1}, axes[1])
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


def test_a_metric_that_a_model_lacks_is_left_blank():
    axes = plots.scoreboard(MODELS)
    assert [ax.get_title() for ax in axes] == ["AUC", "train seconds", "accuracy"]
    assert [len(ax.texts) for ax in axes] == [2, 1, 1]


def test_counts_are_written_with_their_percentage_of_the_total():
    ax = plots.counts({"Pneumonia": 1431}, total=112_120)
    assert ax.texts[0].get_text() == "1,431 (1.3%)"


def test_cooccurrence_is_read_along_the_row():
    labels = pd.DataFrame({"Pneumonia": [1, 1, 0, 0], "Edema": [1, 0, 0, 0], "Hernia": [0, 0, 0, 0]})
    ax = plots.label_cooccurrence(labels)
    cells = {text.get_position(): text.get_text() for text in ax.texts}
    assert cells[(1, 0)] == "50"  # of the two with pneumonia, one has oedema
    assert cells[(0, 1)] == "100"  # of the one with oedema, one has pneumonia
    assert cells[(0, 2)] == "–"  # no hernia to speak of


def test_shares_have_wilson_intervals():
    table = pd.DataFrame({"view": ["AP"] * 20, "label": [0] * 20})
    ax = plots.shares(table, "view")
    (segment,) = ax.collections[0].get_segments()
    assert segment[1][1] == pytest.approx(0.1611, abs=5e-5)  # 0 of 20, Newcombe 1998


def test_stacked_shares_fill_the_bar():
    ax = plots.stacked_shares(cohort_table(), "view", "age_group")
    ends = pd.Series([bar.get_x() + bar.get_width() for bar in ax.patches])
    assert ends.max() == pytest.approx(1)


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
    plots.counts({"a": 1}).figure.savefig(buffer, format="png")
    assert Image.open(buffer).convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)
