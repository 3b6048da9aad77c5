"""The figures of the preprocessing chapter show what they were given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from cxrlib.evaluation.metrics import Estimate
from cxrlib.lungs.study import dice_numbers, share
from cxrlib.plots.preprocessing import dice_by_image, site_auc


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


@pytest.fixture
def study():
    """40 images of 40 patients, two seeds: Dice 0.90 to 0.98, and one of 0.5 with an implausible mask."""
    values = np.linspace(0.9, 0.98, 40)
    values[0] = 0.5
    parts = [
        pd.DataFrame(
            {
                "row": "a", "seed": seed, "image_id": [f"i{k}" for k in range(40)],
                "patient_id": [f"p{k}" for k in range(40)], "dice": values + 0.01 * seed,
                "problem": ["one region instead of two"] + [""] * 39,
            }
        )
        for seed in (0, 1)
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def test_dice_is_averaged_over_seeds_and_images(study):
    numbers = dice_numbers(study)
    assert numbers["a.dice"].value == pytest.approx(study["dice"].mean())
    assert numbers["a.dice"].low < numbers["a.dice"].value < numbers["a.dice"].high
    assert (numbers["a.dice"].n, numbers["a.dice"].seeds) == (40, 2)


def test_the_worst_tenth_are_the_four_lowest_of_forty(study):
    by_image = study.groupby("image_id")["dice"].mean()
    assert dice_numbers(study)["a.dice_worst_decile"].value == pytest.approx(by_image.nsmallest(4).mean())


def test_shares_count_images(study):
    numbers = dice_numbers(study)
    assert numbers["a.plausible"].value == pytest.approx(39 / 40)
    assert numbers["a.below_0.9"].value == pytest.approx(1 / 40)


def test_a_share_of_all_still_has_an_interval():
    estimate = share(np.ones(100, bool))
    assert estimate.value == 1
    assert estimate.low == pytest.approx(0.9630, abs=1e-4)  # Wilson: 1 / (1 + 1.96² / 100)


def test_an_image_below_the_axis_is_drawn_at_its_end(study):
    figure = dice_by_image(study, dice_numbers(study), {"a": "A\n→ B"})
    (ax,) = figure.axes
    below = [line for line in ax.lines if line.get_marker() == "<" and len(line.get_xdata())]
    assert len(below) == 1 and below[0].get_xdata()[0] == pytest.approx(0.7)
    assert any("lowest 0.5" in text.get_text() for text in ax.texts)


def test_every_step_and_region_has_its_point():
    steps = {"as stored": Estimate(0.99, 0.98, 1.0, 50), "normalisation": Estimate(0.7, 0.6, 0.8, 50)}
    ax = site_auc({"whole image": steps, "lungs alone": steps})
    assert [label.get_text() for label in ax.get_yticklabels()] == list(steps)
    assert len(ax.containers) == 2


def test_an_auc_without_an_interval_is_a_point_alone():
    ax = site_auc({"whole image": {"as stored": Estimate(0.9)}})
    (bars,) = ax.containers[0][2]
    (bar,) = bars.get_segments()
    assert bar[:, 0] == pytest.approx([0.9, 0.9])
