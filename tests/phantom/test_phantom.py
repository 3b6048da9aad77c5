from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from cxrlib.errors import ConfigError
from cxrlib.phantom import phantom
from cxrlib.phantom.latents import CONFOUNDERS, Confounder, Streams, draw
from cxrlib.phantom.phantom import PhantomConfig, load, render, render_latents, twin


@pytest.fixture(scope="module")
def cohort():
    return load(48, image_size=64, seed=3)


@pytest.fixture(scope="module")
def many_latents():
    return draw(Streams(0), PhantomConfig(marker=0.9, devices=0.2), 0, 5000)


def test_a_seed_gives_the_same_cohort_twice(cohort):
    again = load(48, image_size=64, seed=3)
    assert again.content_hash() == cohort.content_hash()
    assert again.table.equals(cohort.table)


def test_another_seed_gives_other_patients(cohort):
    other = load(8, image_size=64, seed=4)
    assert not set(other.patients) & set(cohort.patients)
    assert (other.images != cohort.images[:8]).mean() > 0.5


def test_a_longer_cohort_begins_with_the_shorter_one(cohort):
    longer = load(60, image_size=64, seed=3)
    assert np.array_equal(longer.images[:48], cohort.images)
    assert longer.table.head(48).equals(cohort.table)


def test_a_cohort_can_be_rendered_in_chunks(cohort):
    chunk = render(6, image_size=64, seed=3, start=30)
    assert np.array_equal(chunk.images, cohort.images[30:36])
    assert np.array_equal(chunk.lesion_masks, cohort.lesion_masks[30:36])


def test_the_same_patients_appear_at_every_size():
    small, large = (render(10, image_size=size, seed=1) for size in (64, 128))
    for row in range(10):
        halved = np.asarray(Image.fromarray(large.images[row]).resize((64, 64), Image.Resampling.BOX))
        assert np.corrcoef(halved.ravel(), small.images[row].ravel())[0, 1] > 0.97
        mask = large.lung_masks[row].reshape(64, 2, 64, 2).mean(axis=(1, 3)) > 0.5
        both, either = mask & (small.lung_masks[row] > 0), mask | (small.lung_masks[row] > 0)
        assert both.sum() / either.sum() > 0.92


def test_images_are_bytes_that_use_the_scale(cohort):
    assert cohort.images.dtype == np.uint8
    spread = np.percentile(cohort.images, 95, axis=(1, 2)) - np.percentile(cohort.images, 5, axis=(1, 2))
    assert np.median(spread) > 120


def test_bone_and_abdomen_are_brighter_than_lung(cohort):
    lung = cohort.lung_masks > 0
    spine = np.zeros_like(lung)
    spine[:, 24:50, 30:34] = True
    for image, inside, middle in zip(cohort.images, lung, spine & ~lung, strict=True):
        assert image[middle].mean() > image[inside].mean()


def test_masks_are_binary_and_lesions_lie_in_the_lungs(cohort):
    assert set(np.unique(cohort.lung_masks)) == {0, 1}
    assert set(np.unique(cohort.lesion_masks)) == {0, 1}
    assert not (cohort.lesion_masks > cohort.lung_masks).any()


def test_every_image_has_two_lungs_of_plausible_size(cohort):
    share = cohort.lung_masks.mean(axis=(1, 2))
    assert share.min() > 0.12
    assert share.max() < 0.5
    for mask in cohort.lung_masks:
        sizes = np.sort(np.bincount(ndimage.label(mask)[0].ravel())[1:])
        assert sizes[-2:].sum() > 0.99 * sizes.sum()


def test_only_the_ill_have_lesions(cohort):
    size = cohort.lesion_masks.sum(axis=(1, 2))
    assert (size[cohort.labels == 0] == 0).all()
    assert (size[cohort.labels == 1] > 0).mean() > 0.95


def test_subtype_is_given_for_the_ill_alone(cohort):
    ill = cohort.labels == 1
    assert set(cohort.table["subtype"][ill]) == {"lobar", "diffuse"}
    assert set(cohort.table["subtype"][~ill]) == {""}


def test_lobar_disease_is_on_one_side_and_diffuse_disease_on_both(cohort):
    both_sides = {}
    for subtype in ("lobar", "diffuse"):
        ill = twin(cohort, label=1, subtype=subtype)
        halves = ill.lesion_masks[:, :, :32].sum(axis=(1, 2)), ill.lesion_masks[:, :, 32:].sum(axis=(1, 2))
        both_sides[subtype] = (np.minimum(*halves) > 10).mean()
    assert both_sides["lobar"] < 0.1
    assert both_sides["diffuse"] > 0.6


def test_the_twin_without_a_change_is_the_cohort_itself(cohort):
    same = twin(cohort)
    assert same.content_hash() == cohort.content_hash()
    assert same.table.equals(cohort.table)


def test_the_marker_twin_differs_in_a_patch_near_an_upper_corner_and_nowhere_else(cohort):
    with_marker, without = twin(cohort, marker=True), twin(cohort, marker=False)
    for one, other in zip(with_marker.images, without.images, strict=True):
        rows, columns = np.nonzero(one != other)
        assert 0 < len(rows) < 0.03 * one.size
        assert rows.max() < 20
        assert np.ptp(columns) < 12
    assert np.array_equal(with_marker.lung_masks, without.lung_masks)
    assert with_marker.table["marker"].all()
    assert not without.table["marker"].any()


def test_the_portable_twin_differs_in_a_line_of_text(cohort):
    with_text, without = twin(cohort, portable=True), twin(cohort, portable=False)
    changed = with_text.images != without.images
    assert changed.any(axis=(1, 2)).all()
    assert not changed[:, 16:].any()


def test_the_collimation_twin_differs_at_the_border_alone(cohort):
    changed = twin(cohort, collimation=True).images != twin(cohort, collimation=False).images
    assert changed.any(axis=(1, 2)).all()
    assert not changed[:, 8:-8, 8:-8].any()


def test_the_disease_twin_differs_inside_the_lungs_alone(cohort):
    ill, healthy = twin(cohort, label=1), twin(cohort, label=0)
    reach = ndimage.binary_dilation(cohort.lung_masks > 0, np.ones((1, 5, 5), bool))
    assert not ((ill.images != healthy.images) & ~reach).any()
    inside = ill.lesion_masks > 0
    assert ill.images[inside].mean() > healthy.images[inside].mean() + 5
    assert set(ill.labels) == {1}
    assert set(healthy.labels) == {0}


def test_devices_only_add_brightness(cohort):
    changed = twin(cohort, devices=True, marker=False).images.astype(int)
    changed -= twin(cohort, devices=False, marker=False).images
    assert changed.min() >= 0
    assert (changed > 0).mean() < 0.25


def test_the_shifted_site_is_brighter(cohort):
    shifted, usual = twin(cohort, exposure=True), twin(cohort, exposure=False)
    lung = cohort.lung_masks > 0
    assert shifted.images[lung].mean() > usual.images[lung].mean() + 8
    assert set(shifted.table["site"]) == {"south"}
    assert set(usual.table["site"]) == {"north"}


def test_the_heart_is_wider_in_ap(cohort):
    def ratio(masks):  # of the gap between the lungs, two thirds of the way down, to the width of the chest
        found = []
        for mask in masks:
            rows = np.flatnonzero(mask.any(axis=1))
            row = mask[rows[0] + int(0.66 * len(rows))]
            middle = np.flatnonzero(row[:32])[-1], np.flatnonzero(row[32:])[0] + 32
            found.append((middle[1] - middle[0]) / np.ptp(np.flatnonzero(mask.any(axis=0))))
        return np.array(found)

    ap, pa = twin(cohort, projection=True), twin(cohort, projection=False)
    assert set(ap.table["view"]) == {"AP"}
    assert (ratio(ap.lung_masks) > ratio(pa.lung_masks)).mean() > 0.85
    assert 0.3 < np.median(ratio(pa.lung_masks)) < 0.6


def test_lungs_are_shorter_in_ap(cohort):
    height = [
        np.mean([np.ptp(np.flatnonzero(mask.any(axis=1))) for mask in twin(cohort, projection=ap).lung_masks])
        for ap in (True, False)
    ]
    assert height[0] < height[1]


def test_more_severe_disease_takes_more_air(cohort):
    lesion = twin(cohort, label=1, severity=0.5).lesion_masks > 0
    brightness = [twin(cohort, label=1, severity=s).images[lesion].mean() for s in (0.5, 1.0, 2.0)]
    assert brightness[0] < brightness[1] < brightness[2]


@pytest.mark.parametrize("name", CONFOUNDERS)
@pytest.mark.parametrize("label", [0, 1])
def test_a_confounder_is_as_frequent_as_its_knob_says(many_latents, name, label):
    present = np.array([getattr(one, name) for one in many_latents if one.label == label])
    config = PhantomConfig(marker=0.9, devices=0.2)
    expected = getattr(config, name).probability(bool(label))
    assert abs(present.mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / len(present)) + 1e-9


def test_prevalence_is_the_knobs(many_latents):
    labels = np.array([one.label for one in many_latents])
    # Labels agree within patients, so fewer than 5,000 of them are independent.
    assert abs(labels.mean() - 0.4) < 5 * np.sqrt(0.24 / 5000)


@pytest.mark.parametrize(
    ("rate", "agreement", "ill", "healthy"),
    [
        (0.3, 0.5, 0.3, 0.3),
        (0.3, 1.0, 1.0, 0.0),
        (0.5, 0.8, 0.8, 0.2),
        (0.2, 0.75, 0.6, 0.1),
        (0.3, 0.0, 0.0, 1.0),
    ],
)
def test_agreement_moves_the_two_probabilities_apart(rate, agreement, ill, healthy):
    knob = Confounder(rate, agreement)
    assert knob.probability(True) == pytest.approx(ill)
    assert knob.probability(False) == pytest.approx(healthy)


def test_a_number_sets_a_confounders_agreement_and_keeps_its_rate():
    assert PhantomConfig(marker=0.95).marker == Confounder(0.5, 0.95)


def test_unconfounded_keeps_rates_and_cuts_every_tie():
    config = PhantomConfig(marker=1.0).unconfounded()
    assert {getattr(config, name).agreement for name in CONFOUNDERS} == {0.5}
    assert config.devices.rate == PhantomConfig().devices.rate


def test_a_perfect_confounder_is_the_label():
    cohort = load(40, image_size=32, seed=2, marker=1.0)
    assert (cohort.table["marker"].to_numpy() == (cohort.labels == 1)).all()


def test_portable_text_is_on_ap_images_unless_the_knobs_force_it_elsewhere(many_latents):
    usual = draw(Streams(0), PhantomConfig(), 0, 1000)
    assert not any(one.portable and not one.projection for one in usual)


def test_confounding_changes_no_patient():
    free, tied = (load(12, image_size=48, seed=9, marker=a) for a in (0.5, 1.0))
    assert np.array_equal(twin(free, marker=False).images, twin(tied, marker=False).images)


def test_no_patient_is_in_two_splits():
    cohort = load(150, image_size=32, images_per_patient=3)
    splits = cohort.table.groupby("patient_id")["split"].nunique()
    assert splits.max() == 1
    assert set(cohort.table["split"]) == {"train", "val", "test"}
    assert len(splits) < 100


def test_a_patients_images_share_body_and_differ_in_the_exam():
    latents = draw(Streams(0), PhantomConfig(images_per_patient=3), 0, 60)
    pairs = [(a, b) for a, b in pairwise(latents) if a.patient == b.patient]
    assert pairs
    assert all(a.body == b.body and b.follow_up == a.follow_up + 1 and a.exam != b.exam for a, b in pairs)


def test_a_part_of_a_cohort_has_twins_too(cohort):
    part = cohort.take(np.array([40, 2, 17]))
    assert np.array_equal(twin(part).images, part.images)


def test_changed_latents_can_be_rendered_directly(cohort):
    one = phantom.latents_of(cohort.take(np.array([0])))[0]
    made = render_latents([one, replace(one, marker=not one.marker)], image_size=64, seed=3)
    assert np.array_equal(made.images[0], cohort.images[0])
    assert (made.images[0] != made.images[1]).any()


@pytest.mark.parametrize(
    ("knobs", "named"),
    [
        ({"prevalence": 1.2}, "prevalence"),
        ({"marker": -0.1}, "marker"),
        ({"marker": "always"}, "marker"),
        ({"devices": Confounder(2.0, 0.5)}, "devices.rate"),
        ({"severity": float("nan")}, "severity"),
        ({"images_per_patient": 0.5}, "images_per_patient"),
        ({"sites": ()}, "sites"),
        ({"markers": 0.5}, "markers"),
        ({"n": 0}, "n"),
        ({"n": 2.5}, "n"),
        ({"image_size": 8}, "image_size"),
        ({"seed": -1}, "seed"),
        ({"config": PhantomConfig(), "marker": 0.9}, "config"),
    ],
)
def test_a_bad_knob_is_named(knobs, named):
    with pytest.raises(ConfigError, match=named):
        load(**({"n": 4, "image_size": 32} | knobs))


def test_a_twin_of_something_else_is_refused(cohort):
    with pytest.raises(ConfigError, match="age"):
        twin(cohort, age=40)
    with pytest.raises(ConfigError, match="no phantom"):
        twin(replace(cohort, name="nih"), marker=False)


@pytest.mark.real_data
def test_lungs_are_where_real_lungs_are(data_root):
    def average(masks):
        return np.mean([mask.astype(float) for mask in masks], axis=0).ravel()

    files = sorted((data_root / "lung-masks" / "masks").glob("*.png"))[::4]
    real = average([np.asarray(Image.open(file).convert("L").resize((64, 64))) > 0 for file in files])
    made = average(render(150, image_size=64, seed=8).lung_masks)
    assert np.corrcoef(real, made)[0, 1] > 0.93
    assert made.mean() == pytest.approx(real.mean(), rel=0.15)


@pytest.mark.real_data
def test_detail_is_as_fine_as_in_real_radiographs(data_root):
    def spectrum(images):
        window = np.hanning(128)[:, None] * np.hanning(128)
        images = images - images.mean(axis=(1, 2), keepdims=True)
        power = (np.abs(np.fft.fft2(images * window)) ** 2).mean(axis=0)
        cycles = np.sqrt(sum(f**2 for f in np.meshgrid(*[np.fft.fftfreq(128) * 128] * 2)))
        edges = [1, 4, 8, 16, 32, 64]
        return np.array([power[(cycles >= a) & (cycles < b)].mean() for a, b in pairwise(edges)])

    files = sorted((data_root / "nih-subset" / "images").glob("*.png"))[::6]
    real = np.array([np.asarray(Image.open(file).convert("L").resize((128, 128)), float) for file in files])
    made = render(60, image_size=128, seed=8).images.astype(float)
    assert np.abs(np.log10(spectrum(made) / spectrum(real))).max() < 0.5
