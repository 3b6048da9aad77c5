"""Remedies against a planted shortcut: the patients, the measures, the choice; crops and what they leave."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cxrlib.cohort import Cohort
from cxrlib.errors import ConfigError, DataError
from cxrlib.evaluation.metrics import auc
from cxrlib.plots import remedies as remedy_plots
from cxrlib.studies import crop_study, remedies
from cxrlib.studies.planting import Pairs, pairs, seen
from cxrlib.studies.study_stats import Draws, mean_draws, ratio_draws, worst_draws
from cxrlib.training.models import Classifier


@pytest.fixture(scope="module")
def planted():
    return pairs(150, 64, 3, external=40, find_lungs=False, progress=False, workers=1)


def chest(n=160, seed=0, agreement=0.9):
    """Planted by hand: 32-pixel images, lungs in the middle, a blob in them, a square in the corner."""
    rng = np.random.default_rng(seed)

    def made(number):
        labels = rng.integers(0, 2, number)
        images = rng.normal(90, 10, (number, 32, 32))
        images[:, 12:20, 12:20] += 40 * labels[:, None, None]
        masks = np.zeros(images.shape, np.uint8)
        masks[:, 8:24, 8:24] = 1
        table = pd.DataFrame(
            {
                "image_id": [f"{number}-{k}" for k in range(number)],
                "patient_id": [f"{number}-{k}" for k in range(number)],
                "label": labels,
                "split": np.array(["train", "val", "test"])[np.arange(number) % 3],
            }
        )
        return Cohort(images.clip(0, 255).astype(np.uint8), table, masks, name="chest")

    off, external = made(n), made(60)
    images = np.array(off.images)
    images[:, 1:5, 1:5] = 250
    present = rng.random(n) < np.where(off.labels == 1, agreement, 1 - agreement)
    return Pairs(off, off.with_images(images), external, "marker", present, rng.random(n) < 0.5)


class Looks(nn.Module):
    """A network that looks at one square: brighter than a threshold is ill."""

    def __init__(self, rows, threshold):
        super().__init__()
        self.rows, self.threshold = rows, threshold
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        value = 127.5 + 64 * x[:, :, self.rows, self.rows].mean((2, 3))
        return self.weight * (value - self.threshold) / 5


AT_LUNGS = Classifier(Looks(slice(12, 20), 110)).eval()
AT_CORNER = Classifier(Looks(slice(1, 5), 170)).eval()


def test_twins_differ_in_the_marker_alone(planted):
    changed = np.abs(planted.on.images.astype(int) - planted.off.images) > 0
    assert changed.any(axis=(1, 2)).all()
    assert changed.mean() < 0.02
    assert not changed[:, 24:].any()  # near the upper corners
    assert (planted.on.table["image_id"] == planted.off.table["image_id"]).all()
    assert (planted.on.labels == planted.off.labels).all()


def test_pairs_without_lung_masks_are_mixed_alike():
    masked = chest(30)
    bare = replace(
        masked, **{name: replace(getattr(masked, name), lung_masks=None) for name in ("off", "on")}
    )
    assert bare.confounded.lung_masks is None
    np.testing.assert_array_equal(bare.confounded.images, masked.confounded.images)


def test_the_marker_goes_along_with_the_disease_as_often_as_asked():
    many = pairs(150, 64, 3, external=40, find_lungs=False, agreement=1.0, progress=False, workers=1)
    assert (many.present == (many.off.labels == 1)).all()


def test_the_confounded_cohort_takes_each_image_from_one_twin(planted):
    cohort = planted.confounded
    for present, twin in ((True, planted.on), (False, planted.off)):
        rows = cohort.table["marker"].to_numpy() == present
        assert (cohort.images[rows] == twin.images[rows]).all()
    assert auc(cohort.labels, planted.present) > 0.85
    assert 0.35 < auc(cohort.labels, planted.unrelated) < 0.65
    assert (planted.reference.patients == cohort.patients).all()


def test_what_is_done_to_the_images_is_done_to_both_twins(planted):
    masked = planted.seen(("mask",))
    differing = (masked.on.images != masked.off.images).any(axis=(1, 2)).mean()
    assert differing < 0.1  # the lungs seldom reach the marker
    assert (masked.external.images[masked.external.lung_masks == 0] == 0).all()
    with pytest.raises(ConfigError, match="paint"):
        seen(planted.off, ("paint",))


def test_found_lungs_stand_in_for_known_ones():
    small = pairs(6, 64, 5, external=4, find_lungs=True, progress=False, workers=1)
    known = pairs(6, 64, 5, external=4, find_lungs=False, progress=False, workers=1)
    both = small.off.lung_masks & known.off.lung_masks
    dice = 2 * both.sum() / (small.off.lung_masks.sum() + known.off.lung_masks.sum())
    assert dice > 0.9


def test_a_network_that_looks_at_the_lungs_never_flips_and_one_at_the_corner_always():
    view = chest()
    good, bad = (
        remedies.measure([model], view, replicates=50, attributed=5) for model in (AT_LUNGS, AT_CORNER)
    )
    assert good["flip_rate"].values[0] == 0
    assert good["worst_group"].values[0] > 0.95
    assert good["inside_lungs"].values[0] > 0.99
    assert bad["flip_rate"].values[0] == 1
    assert bad["worst_group"].values[0] == 0
    assert bad["inside_lungs"].values[0] < 0.01
    assert bad["in_distribution_auc"].values[0] > 0.8
    assert bad["uncorrelated_auc"].values[0] == pytest.approx(0.5, abs=0.1)


def test_attribution_in_lungs_needs_their_masks():
    view = chest()
    bare = replace(view, on=view.on.with_images(view.on.images, lung_masks=None))
    with pytest.raises(DataError, match="no lung masks"):
        remedies.measure([AT_LUNGS], bare, replicates=50, attributed=5)


def test_means_of_patients_by_hand():
    found = mean_draws([[1, 0, 0, 1]], ["a", "a", "b", "c"], replicates=3000)
    assert found.values == pytest.approx([0.5])
    # a has 1 of 2, b 0 of 1, c 1 of 1: drawn with replacement the mean stays near ½
    assert found.replicates.mean() == pytest.approx(0.5, abs=0.03)
    assert found.replicates.min() == 0 and found.replicates.max() == 1


def test_a_share_stays_between_0_and_1_and_one_of_nothing_has_wilsons_interval():
    none = mean_draws(np.zeros((3, 40)), range(40), replicates=50).estimate()
    assert (none.value, none.low, none.high) == pytest.approx((0, 0, 0.0876), abs=1e-3)
    few = mean_draws([[1] + 39 * [0], 40 * [0]], range(40), replicates=200).estimate()
    assert few.low == 0 < few.value < few.high


def test_the_worst_group_is_found_network_by_network():
    one, two = (Draws(np.array(v), np.array([v]), 10) for v in ([0.9, 0.6], [0.7, 0.8]))
    assert worst_draws([one, two]).values.tolist() == [0.7, 0.6]


def test_a_ratio_is_that_of_the_means_and_its_error_that_of_the_delta_method():
    rng = np.random.default_rng(0)
    above, below = 0.2 + rng.normal(0, 0.01, (9000, 1)), 0.25 + rng.normal(0, 0.01, (9000, 1))
    found = ratio_draws(Draws(np.array([0.2]), above, 5), Draws(np.array([0.25]), below, 5))
    assert found.values == pytest.approx([0.8])
    assert found.replicates.std() == pytest.approx(np.std(above / below), rel=0.05)


def draws_of(worst, flips):
    return {
        "val_worst_group": Draws(np.array([worst]), np.zeros((2, 1)), 9),
        "val_flip_rate": Draws(np.array([flips]), np.zeros((2, 1)), 9),
    }


def test_the_best_has_the_best_worst_group_among_those_with_few_flips():
    found = {"naive": draws_of(0.99, 0.0), "crop": draws_of(0.9, 0.1), "mask": draws_of(0.8, 0.01)}
    assert remedies.choose(found) == "mask"
    assert remedies.choose(found | {"lungs": draws_of(0.85, 0.02)}) == "lungs"
    assert remedies.choose({"crop": draws_of(0.9, 0.1), "inpaint": draws_of(0.5, 0.05)}) == "inpaint"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return remedies.remedies(
        chest(360), "smoke", (0, 1), arms=("mask", "balanced", "last_layer"), progress=False,
        store=tmp_path_factory.mktemp("store"), replicates=50,
    )  # fmt: skip


def test_the_study_reports_every_arm_and_the_best(study):
    arms = ["naive", "reference", "mask", "balanced", "last_layer"]
    assert study.runs["arm"].drop_duplicates().tolist() == arms
    numbers, best = study.numbers, study.runs.loc[study.runs["chosen"], "arm"].iloc[0]
    for key in ("gap_closed", "flip_rate", "auc_cost", "auc_cost_to_reference", "worst_group"):
        assert numbers[f"best.{key}"] == numbers[f"{best}.{key}"]
    assert numbers["mask.flip_rate"].value == 0  # the square is not in the lungs
    cost = numbers["naive.in_distribution_auc"].value - numbers["mask.in_distribution_auc"].value
    assert numbers["mask.auc_cost"].value == pytest.approx(cost)
    gap = numbers["reference.worst_group"].value - numbers["naive.worst_group"].value
    gained = numbers["mask.worst_group"].value - numbers["naive.worst_group"].value
    assert numbers["mask.gap_closed"].value == pytest.approx(gained / gap)


def test_figures_have_a_line_an_arm(study, planted):
    figure = remedy_plots.remedies(study)
    assert len(figure.axes[0].get_yticklabels()) == 5
    views = {"as it is": planted.on, "masked": planted.seen(("mask",)).on}
    assert len(remedy_plots.steps(views, (0, 1)).axes) == 4


def test_an_unknown_remedy_or_preset_is_named():
    with pytest.raises(ConfigError, match="prayer"):
        remedies.remedies(chest(30), "smoke", arms=("prayer",))
    with pytest.raises(ConfigError, match="huge"):
        remedies.budget("huge")
    with pytest.raises(ConfigError, match="weather"):
        pairs(10, 64, column="weather")


def test_all_ways_of_looking_end_at_one_size_with_masks_alike():
    cohort = chest(30).off
    small = crop_study.smaller(cohort, 16)
    for name, way in crop_study.ARMS.items():
        view = way(cohort, small)
        assert view.images.shape == (30, 16, 16), name
    cropped = crop_study.ARMS["crop"](cohort, small)
    assert cropped.lung_masks.all()  # a square lung fills its box
    assert crop_study.ARMS["whole"](cohort, small).lung_masks.mean() == pytest.approx(0.25)


def test_crop_study_compares_with_whole_on_the_same_patients(tmp_path, monkeypatch):
    spend = replace(crop_study.BUDGETS["smoke"], size=16, arms=("crop", "mask", "whole_frame", "crop_frame"))
    monkeypatch.setitem(crop_study.BUDGETS, "smoke", spend)
    found = crop_study.crop_study(
        chest(240).off, "smoke", (0, 1), store=tmp_path, progress=False, replicates=50
    )
    numbers = found.numbers
    assert found.runs["arm"].drop_duplicates().tolist()[0] == "whole"
    for metric in ("val_auc", "test_auc", "test_accuracy", "test_accuracy_at_val"):
        difference = numbers[f"crop.{metric}"].value - numbers[f"whole.{metric}"].value
        assert numbers[f"crop_minus_whole.{metric}"].value == pytest.approx(difference)
    assert "crop_frame_minus_whole_frame.test_auc" in numbers
    assert numbers["ill.lungs_found"].value == 1
    assert len(remedy_plots.crop(found).axes) == 3
