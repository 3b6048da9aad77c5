"""A view reaches what is in it: labels painted into the frame are found there, and not among the lungs."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from cxrlib.cohort import Cohort, split_by_patient
from cxrlib.errors import ConfigError
from cxrlib.images.regions import keep_frame
from cxrlib.studies import region_study
from cxrlib.studies.study_stats import Draws, ratio_draws


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    config = replace(region_study.NETWORKS["smoke"], epochs=8, batch_size=16, learning_rate=2e-3, dropout=0)
    monkeypatch.setitem(region_study.NETWORKS, "smoke", config)
    monkeypatch.setitem(region_study.IMAGES, "smoke", None)


def painted(where):
    """300 noisy 40-pixel images with two lungs; the ill are brighter in the ``frame`` or in the ``lungs``."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    images = rng.normal(110, 20, (300, 40, 40))
    lungs = np.zeros((40, 40), np.uint8)
    lungs[10:30, 8:18] = lungs[10:30, 22:32] = 1
    if where == "frame":
        images[labels == 1, :3] += 45
    else:
        images[labels == 1] += 45 * lungs
    patients = [f"p{i // 2}" for i in range(300)]
    table = pd.DataFrame(
        {"image_id": [f"i{i}" for i in range(300)], "patient_id": patients, "label": labels}
        | {"split": split_by_patient(patients, (0.5, 0.2, 0.3))}
    )
    return Cohort(images.clip(0, 255).astype(np.uint8), table, np.repeat(lungs[None], 300, axis=0))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


def test_a_label_in_the_frame_is_found_there_and_not_in_the_lungs(store):
    views = ("frame", "lungs_only", "lungs_removed", "lung_shape")
    found = region_study.regions(painted("frame"), "smoke", views=views, store=store, progress=False).numbers
    assert found["frame.test_auc"].value > 0.95
    assert found["lungs_removed.test_auc"].value > 0.95
    assert found["frame.test_accuracy"].value > 0.85
    for view in ("lungs_only", "lung_shape"):
        assert abs(found[f"{view}.test_auc"].value - 0.5) < 0.2
        assert found[f"{view}.auc_minus_whole"].high < 0
        assert found[f"{view}.auc_minus_whole.p_holm"].value < 0.01
    assert found["frame.share_of_whole"].value == pytest.approx(
        (found["frame.test_auc"].value - 0.5) / (found["whole.test_auc"].value - 0.5)
    )


def test_a_label_in_the_lungs_is_found_there_and_not_in_the_frame(store):
    views = ("lungs_only", "frame", "corners")
    found = region_study.regions(painted("lungs"), "smoke", views=views, store=store, progress=False)
    assert found.numbers["lungs_only.test_auc"].value > 0.95
    for view in ("frame", "corners"):
        assert abs(found.numbers[f"{view}.test_auc"].value - 0.5) < 0.2
    assert list(found.runs["view"]) == ["whole", "lungs_only", "frame", "corners"]


def test_cohorts_without_masks_are_segmented_only_where_a_view_needs_it(store, monkeypatch):
    asked = []
    whole = painted("frame")
    monkeypatch.setattr(region_study, "segment", lambda cohort, **_: asked.append(cohort) or whole)
    bare = whole.with_images(whole.images, lung_masks=None)
    region_study.regions(bare, "smoke", views=("frame",), store=store, progress=False)
    assert not asked
    region_study.regions(bare, "smoke", views=("lungs_only",), store=store, progress=False)
    assert len(asked) == 1


def test_the_test_accuracy_of_the_larger_class_is_its_share(store):
    cohort = painted("frame")
    found = region_study.regions(cohort, "smoke", views=(), store=store, progress=False).numbers
    ill = cohort.split("test").labels.mean()
    assert found["larger_class.test_accuracy"].value == pytest.approx(max(ill, 1 - ill))


@pytest.mark.parametrize("preset", region_study.NETWORKS)
def test_augmentation_does_not_carry_the_frame_inwards(preset):
    framed = keep_frame(painted("frame").take(np.arange(6)))
    images = torch.from_numpy(framed.images)[:, None].float()
    augmented = region_study.NETWORKS[preset].augment(images, torch.Generator().manual_seed(0))
    assert (augmented != images).any()
    inside = augmented[:, 0, 4:-4, 4:-4]
    assert (inside == inside[:, :1, :1]).all()


def test_the_share_of_the_whole_is_a_ratio_of_means_with_the_interval_of_the_delta_method():
    rng = np.random.default_rng(0)
    part = Draws(np.array([0.7, 0.8]), rng.normal(0.75, 0.02, (500, 2)), 100)
    whole = Draws(np.array([0.9, 1.0]), rng.normal(0.95, 0.01, (500, 2)), 100)
    share = ratio_draws(part, whole, nothing=0.5)
    assert share.values.mean() == pytest.approx(0.25 / 0.45)
    same = ratio_draws(whole, whole, nothing=0.5).estimate()
    assert (same.low, same.value, same.high) == pytest.approx((1, 1, 1))


def test_an_unknown_view_or_preset_is_named():
    with pytest.raises(ConfigError, match="backside"):
        region_study.regions(painted("frame"), "smoke", views=("backside",))
    with pytest.raises(ConfigError, match="huge"):
        region_study.regions(painted("frame"), "huge")
