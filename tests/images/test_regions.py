"""Images cut by lung masks: what stays, what goes, and where it was."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrlib.cohort import Cohort
from cxrlib.errors import ConfigError, DataError
from cxrlib.images.regions import (
    VIEWS,
    blur,
    crop_to_lungs,
    histogram,
    keep_corners,
    keep_frame,
    keep_lungs,
    lung_shape,
    lung_window,
    remove_lungs,
    shown,
)


@pytest.fixture
def cohort():
    """Three images of 60 × 60 with two lungs each; the last one's mask is empty."""
    images = np.random.default_rng(0).integers(1, 255, (3, 60, 60), dtype=np.uint8)
    masks = np.zeros_like(images)
    masks[:2, 15:45, 12:26] = 1
    masks[:2, 15:45, 34:48] = 1
    lesions = np.zeros_like(images)
    lesions[0, 20:24, 14:18] = 1
    table = pd.DataFrame(
        {"image_id": list("abc"), "patient_id": list("abc"), "label": [1, 0, 1], "split": ["test"] * 3}
    )
    return Cohort(images, table, masks, lesions)


def test_keeping_the_lungs_changes_nothing_inside_and_blanks_everything_outside(cohort):
    kept = keep_lungs(cohort)
    inside = cohort.lung_masks[0] == 1
    assert (kept.images[0][inside] == cohort.images[0][inside]).all()
    assert (kept.images[0][~inside] == 0).all()


def test_removing_the_lungs_without_a_margin_is_the_complement_of_keeping_them(cohort):
    kept, removed = keep_lungs(cohort), remove_lungs(cohort, 0)
    assert (kept.images + removed.images == cohort.images).all()


def test_a_box_hides_the_outline_of_the_lungs(cohort):
    removed = remove_lungs(cohort, 0, box=True)
    assert (removed.images[0, 15:45, 12:48] == 0).all()
    assert (removed.images[0, :15] == cohort.images[0, :15]).all()


def test_a_margin_reaches_as_far_as_it_says(cohort):
    removed = remove_lungs(cohort, 3 / 60)
    assert (removed.images[0, 12:15, 15] == 0).all()
    assert removed.images[0, 11, 15] == cohort.images[0, 11, 15]


def test_an_image_without_a_mask_is_cut_by_the_typical_lungs(cohort):
    kept = keep_lungs(cohort)
    assert ((kept.images[2] > 0) == (cohort.lung_masks[0] == 1)).all()


def test_or_is_left_out(cohort):
    assert list(keep_lungs(cohort, missing="drop").table["image_id"]) == ["a", "b"]


def test_the_frame_keeps_the_outer_share_and_nothing_else(cohort):
    frame = keep_frame(cohort, 0.1)
    assert (frame.images[:, 6:54, 6:54] == 0).all()
    outer = np.ones((60, 60), bool)
    outer[6:54, 6:54] = False
    assert (frame.images[:, outer] == cohort.images[:, outer]).all()


def test_the_corners_are_four_squares_of_the_frame(cohort):
    corners = keep_corners(cohort, 0.1)
    assert ((corners.images > 0).sum(axis=(1, 2)) == 4 * 6 * 6).all()
    assert (corners.images[:, 54:, :6] == cohort.images[:, 54:, :6]).all()


def test_a_blur_keeps_the_mean_of_each_cell_and_nothing_finer(cohort):
    blurred = blur(cohort, 7)  # 60 is no multiple of 7
    assert blurred.images.shape == cohort.images.shape
    assert len(np.unique(blurred.images[0])) <= 49
    assert blurred.images[0, 0, 0] == round(cohort.images[0, :8, :8].mean())
    assert blurred.images.mean() == pytest.approx(cohort.images.mean(), abs=1)


def test_a_histogram_keeps_every_grey_and_no_place(cohort):
    sorted_greys = histogram(cohort)
    mixed = cohort.with_images(cohort.images[:, ::-1, ::-1])
    assert (np.bincount(sorted_greys.images[0].ravel()) == np.bincount(cohort.images[0].ravel())).all()
    assert (histogram(mixed).images == sorted_greys.images).all()


def test_the_lungs_shape_is_what_their_mask_says(cohort):
    assert (lung_shape(cohort).images[:2] == 255 * cohort.lung_masks[:2]).all()


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_has_the_rows_and_the_shape_of_the_whole(cohort, view):
    seen = shown(cohort, view)
    assert seen.images.shape == cohort.images.shape
    assert seen.table["image_id"].equals(cohort.table["image_id"])


def test_an_unknown_view_is_named(cohort):
    with pytest.raises(ConfigError, match="sideways"):
        shown(cohort, "sideways")


def test_a_crop_is_a_square_around_the_lungs_and_says_where_it_was(cohort):
    cropped = crop_to_lungs(cohort, 0, size=36)
    row = cropped.table.iloc[0]
    assert (row["window_top"], row["window_left"], row["window_side"]) == (12, 12, 36)
    assert (cropped.images[0] == cohort.images[0, 12:48, 12:48]).all()
    assert (cropped.lesion_masks[0] == cohort.lesion_masks[0, 12:48, 12:48]).all()


def test_the_images_that_were_given_stay_as_they_are(cohort):
    before = cohort.images.copy()
    for function in (keep_lungs, remove_lungs, keep_frame, crop_to_lungs):
        function(cohort)
    assert (cohort.images == before).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 50), st.integers(0, 50), st.integers(2, 40), st.integers(2, 40), st.floats(-0.2, 1))
def test_a_window_lies_in_the_image_and_holds_the_box_unless_the_margin_is_negative(y, x, h, w, margin):
    mask = np.zeros((60, 60), np.uint8)
    mask[y : y + h, x : x + w] = 1
    top, left, side = lung_window(mask, margin)
    assert 0 <= top <= 60 - side and 0 <= left <= 60 - side
    if margin >= 0:
        assert mask[top : top + side, left : left + side].sum() == mask.sum()


def test_a_cohort_without_masks_is_told_how_to_get_them(cohort):
    with pytest.raises(DataError, match="segment"):
        keep_lungs(cohort.with_images(cohort.images, lung_masks=None))


def test_a_cohort_with_empty_masks_only_is_an_error(cohort):
    with pytest.raises(DataError, match="None of the 3 images"):
        crop_to_lungs(cohort.with_images(cohort.images, lung_masks=np.zeros_like(cohort.images)))


@pytest.mark.parametrize(
    "call",
    [
        lambda c: crop_to_lungs(c, -0.5),
        lambda c: crop_to_lungs(c, size=0),
        lambda c: keep_lungs(c, 0.7),
        lambda c: keep_frame(c, 0.5),
        lambda c: keep_lungs(c, missing="guess"),
    ],
)
def test_a_setting_out_of_range_is_an_error_that_says_what_is_wanted(cohort, call):
    with pytest.raises(ConfigError, match="What to do"):
        call(cohort)
