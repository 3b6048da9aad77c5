"""The figures of the chapter on shortcuts show every number that they are given, under its own name."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from cxrlib.evaluation.metrics import Estimate
from cxrlib.images.regions import VIEWS
from cxrlib.plots import shortcuts as shortcut_plots
from cxrlib.studies.dose_response import CONFOUNDERS
from cxrlib.studies.study import study_of


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def some(value, n=100):
    return Estimate(value, value - 0.05, value + 0.05, n, 3)


def texts(figure):
    figure.canvas.draw()
    return [t.get_text() for t in figure.findobj(plt.Text) if t.get_visible()]


def test_every_view_is_shown_with_auc_accuracy_and_references():
    numbers = {
        f"{view}.test_{m}": some(0.6 + 0.01 * k) for k, view in enumerate(VIEWS) for m in ("auc", "accuracy")
    }
    found = study_of(pd.DataFrame(), numbers | {"larger_class.test_accuracy": Estimate(0.625)})
    figure = shortcut_plots.regions(found, references={"the original project": 0.82})
    said = texts(figure)
    assert {title for title, _ in shortcut_plots.TITLES.values()} <= set(said)
    assert {"0.600", "0.670", "60.0%", "67.0%", "the original project", "chance"} <= set(said)
    at = [line.get_xdata()[0] for line in figure.axes[1].lines if line.get_label() == "the original project"]
    assert at == [0.82]


def test_every_view_has_a_title():
    assert set(shortcut_plots.TITLES) == set(VIEWS)


def test_images_are_shown_as_the_views_show_them(blob_cohort):
    few = blob_cohort.with_images(blob_cohort.images, lung_masks=np.ones_like(blob_cohort.images))
    figure = shortcut_plots.what_is_seen(few, rows=[0, 1], views=("whole", "frame"))
    images = [ax.images[0].get_array() for ax in figure.axes]
    assert len(images) == 4
    assert np.array_equal(images[0], few.images[0])
    assert not images[1][8:24, 8:24].any()


def test_the_dose_response_shows_three_aucs_and_two_shares_of_flips():
    names = ("auc_holds", "auc_absent", "auc_reversed", "flips", "flips_at_val_threshold")
    levels = (0.5, 0.95)
    numbers = {
        f"marker_{100 * a:.0f}.{name}": some(0.5 + k / 20) for a in levels for k, name in enumerate(names)
    }
    figure = shortcut_plots.dose_response(study_of(pd.DataFrame({"agreement": levels}), numbers))
    assert [len([line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_marker() != "None"])
            for ax in figure.axes] == [3, 2]  # fmt: skip
    assert {"holds", "is absent", "is reversed", "threshold ½", "0.5", "0.95"} <= set(texts(figure))


def test_the_order_of_learning_has_a_line_a_confounder_in_the_order_of_its_rank():
    runs = pd.DataFrame(
        {"confounder": name, "seed": 0, "step": step, "pull": k / 10, "flips": k / 10}
        for k, name in enumerate(CONFOUNDERS)
        for step in (10, 20)
    )
    numbers = {f"{name}.rank": Estimate(6 - k) for k, name in enumerate(CONFOUNDERS)}
    figure = shortcut_plots.order_of_learning(study_of(runs, numbers))
    assert [t.get_text() for t in figure.legends[0].get_texts()] == list(CONFOUNDERS)[::-1]


def test_hospitals_are_named_with_their_images():
    runs = pd.DataFrame({"tested_on": ["internal", "hospital B"], "images": [1200, 300]})
    numbers = {"internal.test_auc": some(0.9), "hospital_B.auc": some(0.7)}
    figure = shortcut_plots.hospitals({"trained at A": study_of(runs, numbers)})
    assert {"its own patients (1,200)", "hospital B (300)", "0.900", "0.700", "trained at A"} <= set(
        texts(figure)
    )


def test_metadata_are_shown_alone_and_together():
    keys = ("score", "predicted_score", "rest_of_score", "metadata", "AP", "PA", "same_view")
    numbers = {f"{key}.auc": some(0.6 + 0.01 * k) for k, key in enumerate(keys)}
    numbers |= {f"{key}.r2_rank": some(0.1) for key in ("metadata", "view", "follow_up")}
    said = texts(shortcut_plots.metadata(numbers, ("view", "follow_up")))
    assert {"all columns", "view", "follow up", "10.0%", "0.660", "score, within AP"} <= set(said)
