"""Telling sites apart: a real difference is found, none is not, and the mask's outline is no cue."""

import numpy as np
import pytest

import cxrlib
from cxrlib.errors import ConfigError, DataError
from cxrlib.studies.site_test import appearance, second_archive, site_test


@pytest.fixture(scope="module")
def two_sites():
    rng = np.random.default_rng(0)
    images = rng.normal(120, 30, (160, 32, 32))
    sites = np.repeat(["A", "B"], 80)
    patients = np.arange(160) // 2
    return images, sites, patients


def as_bytes(images):
    return images.clip(0, 255).astype(np.uint8)


def test_sites_that_look_alike_cannot_be_told(two_sites):
    images, sites, patients = two_sites
    assert abs(site_test(as_bytes(images), sites, patients).auc.value - 0.5) < 0.15


def test_another_brightness_gives_the_site_away(two_sites):
    images, sites, patients = two_sites
    shifted = as_bytes(images + 30 * (sites == "B")[:, None, None])
    result = site_test(shifted, sites, patients)
    assert result.auc.value > 0.98 and result.auc.low <= result.auc.value <= result.auc.high
    assert set(result.pairs) == {"A – B"} and result.scores.shape == (160, 2)


def test_what_is_outside_the_lungs_does_not_count_inside(two_sites):
    images, sites, patients = two_sites
    masks = np.zeros(images.shape, np.uint8)
    masks[:, 8:24, 8:24] = 1
    shifted = as_bytes(images + 60 * (sites == "B")[:, None, None] * (1 - masks))
    assert abs(site_test(shifted, sites, patients, masks=masks, region="lungs").auc.value - 0.5) < 0.15
    assert site_test(shifted, sites, patients, masks=masks, region="outside").auc.value > 0.95


def test_the_outline_of_a_mask_is_not_its_appearance():
    flat = np.full((32, 32), 90, np.uint8)
    one, other = np.zeros((2, 32, 32), np.uint8)
    one[4:12], other[:, 20:30] = 1, 1
    assert np.allclose(appearance(flat, one, "lungs"), appearance(flat, other, "lungs"))


def test_what_is_missing_is_named(two_sites):
    images, sites, patients = two_sites
    with pytest.raises(DataError, match="masks are not given"):
        site_test(as_bytes(images), sites, patients, region="lungs")
    with pytest.raises(ConfigError, match="heart"):
        site_test(as_bytes(images), sites, patients, region="heart")
    with pytest.raises(DataError, match="one site"):
        site_test(as_bytes(images), np.repeat("A", 160), patients)


def test_another_archive_changes_only_its_own_images_and_takes_the_masks_along():
    cohort = cxrlib.load("phantom", n=12, image_size=64, seed=1)
    rows = np.arange(12) % 2 == 0
    stored = second_archive(cohort, rows, padding=0.125, negatives=0.0)
    assert (stored.images[~rows] == cohort.images[~rows]).all()
    assert (stored.images[rows][:, :8] == 0).all()
    inside = stored.images[rows][:, 8:56, 8:56]
    assert inside.min() >= 50 and inside.max() <= 205
    share = stored.lung_masks[rows].mean() / cohort.lung_masks[rows].mean()
    assert share == pytest.approx(0.75**2, rel=0.03)


def test_another_archive_turns_the_share_it_says():
    cohort = cxrlib.load("phantom", n=12, image_size=64, seed=1)
    stored = second_archive(cohort, np.ones(12, bool), negatives=1.0)
    assert (stored.images[:, 0] == 255).all()
