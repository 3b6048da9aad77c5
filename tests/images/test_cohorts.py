"""The pipeline: what must not matter does not, what is cut can be found again, nothing crashes it."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from cxrlib.cohort import Cohort
from cxrlib.errors import ConfigError, DataError
from cxrlib.images.borders import FLAT_RANGE, exposed_box, flat_box, reduced
from cxrlib.images.cohorts import (
    PreprocessConfig,
    geometry_of,
    preprocess,
    preprocess_image,
    steps,
)
from cxrlib.images.geometry import Geometry
from cxrlib.images.markers import _around, find_markers, inpaint
from cxrlib.images.pipeline import TOLERANCE, TOLERANCE_99
from cxrlib.images.polarity import bone_is_bright
from cxrlib.io.decode import decode, resize
from cxrlib.phantom import phantom

SIZE = 96
WITHOUT_MARKERS = PreprocessConfig(markers=None)
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def films():
    return phantom.load(24, 160, seed=3)


def close(a, b):
    difference = np.abs(a.astype(int) - b)
    return difference.mean() < TOLERANCE and np.quantile(difference, 0.99) <= TOLERANCE_99


@QUICK
@given(
    row=st.integers(0, 23),
    pads=st.tuples(*[st.integers(0, 60)] * 4),
    grey=st.sampled_from([0, 255, 128]),
)
def test_padding_changes_nothing(films, row, pads, grey):
    image = films.images[row]
    padded = np.pad(image, (pads[:2], pads[2:]), constant_values=grey)
    assert np.array_equal(preprocess_image(padded, SIZE).image, preprocess_image(image, SIZE).image)


def test_a_negative_comes_out_as_its_original(films):
    for image in films.images:
        original, negative = preprocess_image(image, SIZE), preprocess_image(255 - image, SIZE)
        assert negative.inverted and not original.inverted
        assert np.array_equal(original.image, negative.image)


@pytest.mark.parametrize(("scale", "shift"), [(0.6, 50), (0.8, 0), (0.7, 70)])
def test_scaled_and_shifted_greys_come_out_alike(films, scale, shift):
    alike = [
        close(
            preprocess_image(image, SIZE).image,
            preprocess_image(np.rint(image * scale + shift).astype(np.uint8), SIZE).image,
        )
        for image in films.images
    ]
    assert np.mean(alike) >= 0.85


def test_sixteen_bit_files_come_out_alike(films, tmp_path):
    for number, image in enumerate(films.images[:6]):
        Image.fromarray(image.astype(np.uint16) * 257).save(tmp_path / f"{number}.png")
        stored = decode(tmp_path / f"{number}.png")
        assert close(preprocess_image(stored, SIZE).image, preprocess_image(image, SIZE).image)


@pytest.mark.parametrize("negative", [False, True])
def test_dicom_files_come_out_alike(films, tmp_path, negative):
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    for image in films.images[:6]:
        file = Dataset()
        file.file_meta = FileMetaDataset()
        file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = SecondaryCaptureImageStorage
        file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid()
        file.Rows, file.Columns = image.shape
        file.SamplesPerPixel, file.PixelRepresentation = 1, 0
        file.BitsAllocated, file.BitsStored, file.HighBit = 16, 12, 11
        # As a detector writes it: 12 bits, and MONOCHROME1 where high values are dark.
        file.PhotometricInterpretation = "MONOCHROME1" if negative else "MONOCHROME2"
        stored = np.rint(image * (4095 / 255)).astype(np.uint16)
        file.PixelData = (4095 - stored if negative else stored).tobytes()
        file["PixelData"].VR = "OW"
        file.save_as(tmp_path / "film.dcm", enforce_file_format=True)
        made = preprocess_image(decode(tmp_path / "film.dcm"), SIZE).image
        assert close(made, preprocess_image(image, SIZE).image)


def test_phantoms_and_their_negatives_are_told_apart(films):
    scores = np.array([bone_is_bright(image) for image in films.images])
    assert (scores > 0.3).all()
    assert np.allclose(scores, [-bone_is_bright(255 - image) for image in films.images], atol=0.02)


def test_flat_lines_of_any_grey_are_cut_and_nothing_else():
    inner = np.random.default_rng(0).integers(0, 256, (30, 40)).astype(np.uint8)
    framed = np.pad(np.pad(inner, 3, constant_values=255), ((7, 2), (0, 11)), constant_values=90)
    box = flat_box(framed)
    assert np.array_equal(framed[box.slices], inner)
    assert FLAT_RANGE < 4


@pytest.mark.parametrize("tilt", [0.0, 0.03])
def test_a_dark_noisy_border_is_cut_at_its_edge(films, tilt):
    rng = np.random.default_rng(1)
    image = np.maximum(films.images[0], 60)
    rows, columns = np.mgrid[: len(image), : len(image)]
    border = rows > 130 + tilt * (columns - 80)
    image = np.where(border, rng.integers(0, 5, image.shape), image).astype(np.uint8)
    box = exposed_box(reduced(image))
    assert abs(box.top + box.height - 131) <= 1 + tilt * 80


def test_cropping_keeps_nearly_all_of_the_lungs():
    closed = phantom.load(40, 160, seed=5, collimation=1.0)
    lost = []
    for image, lungs in zip(closed.images, closed.lung_masks, strict=True):
        kept = preprocess_image(image, SIZE).geometry
        lost.append(1 - kept.to_original_mask(kept.to_processed_mask(lungs)).sum() / lungs.sum())
    assert np.quantile(lost, 0.95) < 0.03


def test_lead_letters_are_found_where_they_are():
    without = phantom.twin(phantom.load(16, 256, seed=9), marker=False, portable=False)
    lettered = phantom.twin(without, marker=True)
    recalls = []
    for a, b in zip(without.images, lettered.images, strict=True):
        truth = np.abs(a.astype(int) - b) > 40
        if truth.sum() > 10:
            recalls.append((find_markers(b) & truth).sum() / truth.sum())
    assert np.mean(recalls) > 0.6
    assert np.mean([find_markers(image).mean() for image in without.images]) < 1e-3


@pytest.mark.parametrize(("shape", "reach"), [((64, 64), 7), ((25, 31), 9), ((24, 40), 13)])
def test_the_least_and_greatest_around_a_pixel_are_scipys(shape, reach):
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    opened = _around(_around(image, reach, np.minimum), reach, np.maximum)
    closed = _around(_around(image, reach, np.maximum), reach, np.minimum)
    assert np.array_equal(opened, ndimage.grey_opening(image, size=(reach, reach), mode="reflect"))
    assert np.array_equal(closed, ndimage.grey_closing(image, size=(reach, reach), mode="reflect"))


def test_what_is_filled_in_lies_between_its_surroundings():
    image = np.tile(np.linspace(50, 200, 64).astype(np.uint8), (64, 1))
    mask = np.zeros(image.shape, bool)
    mask[20:30, 20:30] = True
    broken = np.where(mask, 255, image).astype(np.uint8)
    assert np.abs(inpaint(broken, mask).astype(int) - image)[mask].max() < 20
    assert np.array_equal(inpaint(broken, mask)[~mask], image[~mask])


@QUICK
@given(
    height=st.integers(20, 700),
    width=st.integers(20, 700),
    part=st.tuples(*[st.floats(0, 0.3)] * 4),
    size=st.integers(32, 256),
    where=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_boxes_come_back_to_where_they_were(height, width, part, size, where):
    top, left = int(part[0] * height), int(part[1] * width)
    g = Geometry(
        height,
        width,
        top,
        left,
        height - top - int(part[2] * height),
        width - left - int(part[3] * width),
        size,
    )
    x = np.sort(g.left + np.array(where[:2]) * g.crop_width)
    y = np.sort(g.top + np.array(where[2:]) * g.crop_height)
    box = (x[0], y[0], x[1], y[1])
    there = g.to_processed_box(box)
    assert min(there) >= 0 and max(there) <= size
    assert np.allclose(g.to_original_box(there), box, atol=1e-6)


@QUICK
@given(height=st.integers(60, 400), width=st.integers(60, 400), shape=st.tuples(*[st.floats(0.25, 0.35)] * 4))
def test_masks_come_back_to_within_a_pixel(height, width, shape):
    g = Geometry(height, width, 5, 7, height - 11, width - 9, 128)
    y0, x0 = int(shape[0] * height), int(shape[1] * width)
    y1, x1 = y0 + int(shape[2] * height), x0 + int(shape[3] * width)
    mask = np.zeros((height, width), np.uint8)
    mask[y0:y1, x0:x1] = 1
    back = g.to_original_mask(g.to_processed_mask(mask))
    rows, columns = np.flatnonzero(back.any(1)), np.flatnonzero(back.any(0))
    coarse = (
        max(1.0, max(g.crop_height, g.crop_width) / 128) + 1
    )  # a pixel of the coarser image, and rounding
    found = (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1)
    assert np.abs(np.subtract(found, (y0, y1, x0, x1))).max() <= coarse


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (100, 3000), (3000, 100), (40, 41)])
@pytest.mark.parametrize("kind", ["black", "white", "noise"])
@pytest.mark.parametrize("clahe", [False, True])
def test_odd_images_give_an_image(shape, kind, clahe):
    image = {
        "black": np.zeros(shape, np.uint8),
        "white": np.full(shape, 255, np.uint8),
        "noise": np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8),
    }[kind]
    made = preprocess_image(image, 64, PreprocessConfig(clahe=clahe))
    assert made.image.shape == made.marker_mask.shape == (64, 64) and made.image.dtype == np.uint8


def test_without_steps_it_is_the_plain_resize(films):
    made = preprocess_image(films.images[0], 64, PreprocessConfig.none())
    assert np.array_equal(made.image, resize(films.images[0], 64))


def test_any_tone_curve_comes_out_alike_with_histogram_normalisation(films):
    config = PreprocessConfig(normalise="histogram", markers=None, crop_borders=False)
    image = films.images[1]
    bent = np.rint(255 * (image / 255) ** 0.8).astype(np.uint8)
    a, b = (preprocess_image(one, SIZE, config).image.astype(int) for one in (image, bent))
    assert np.abs(a - b).mean() < 3


@pytest.mark.parametrize(
    "wrong",
    [{"invert": "yes"}, {"normalise": "max"}, {"percentiles": (5, 5)}, {"fit": "crop"}, {"clip_limit": 0}],
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))[:4]):
        PreprocessConfig(**wrong)


def test_colour_images_are_refused():
    with pytest.raises(DataError, match="uint8"):
        preprocess_image(np.zeros((8, 8, 3), np.uint8), 8)


def test_steps_add_up_to_the_config():
    chain = steps(PreprocessConfig())
    assert next(iter(chain)) == "as stored" and list(chain)[-1] == "CLAHE"
    assert chain["normalisation"] == PreprocessConfig()


def test_a_cohort_keeps_its_rows_and_gains_masks_and_geometry(films, tmp_path):
    made = preprocess(films, image_size=64, workers=1, cache_dir=tmp_path)
    assert made.images.shape == made.lung_masks.shape == made.lesion_masks.shape == (24, 64, 64)
    assert made.table["image_id"].tolist() == films.table["image_id"].tolist()
    part = made.take(np.array([5, 2]))
    one = preprocess_image(films.images[2], 64)
    assert geometry_of(part, 1) == one.geometry
    assert part.table["marker_area"].iloc[1] == one.marker_area
    assert np.array_equal(part.images[1], one.image)
    assert made.info["preprocess"]["normalise"] == "percentiles"


def test_the_settings_key_the_cache(films, tmp_path):
    for config in (None, PreprocessConfig(normalise=None)):
        preprocess(films.take(np.arange(4)), config, workers=1, cache_dir=tmp_path)
    assert sum(entry.is_dir() for entry in (tmp_path / "preprocessed").iterdir()) == 2


def test_files_are_decoded_at_their_own_resolution(tmp_path):
    big = phantom.load(5, 300, seed=1)
    paths = [str(tmp_path / f"{i}.png") for i in range(5)]
    masks = [str(tmp_path / f"{i}_mask.png") for i in range(5)]
    for image, lungs, path, mask in zip(big.images, big.lung_masks, paths, masks, strict=True):
        Image.fromarray(image).save(path)
        Image.fromarray(lungs * np.uint8(255)).save(mask)
    small = np.stack([resize(image, 32) for image in big.images])
    lungs = np.zeros_like(small)
    cohort = Cohort(small, big.table.assign(path=paths, mask_path=masks), lungs)
    made = preprocess(cohort, image_size=64, workers=1, cache_dir=tmp_path)
    expected = preprocess_image(big.images[3], 64)
    assert np.array_equal(made.images[3], expected.image)
    assert np.array_equal(made.lung_masks[3], expected.geometry.to_processed_mask(big.lung_masks[3]))
    assert made.table["marker_area"].iloc[3] == expected.marker_area


def test_only_a_preprocessed_cohort_has_a_geometry(films):
    with pytest.raises(DataError, match="geometry"):
        geometry_of(films, 0)


@pytest.mark.real_data
def test_real_radiographs_are_not_called_negatives_and_their_negatives_are(data_root):
    paths = sorted((data_root / "lung-masks" / "images").glob("*.png"))[::12]
    paths += sorted((data_root / "kermany224").rglob("*.jpeg"))[::100]
    images = [decode(path) for path in paths]
    assert not any(preprocess_image(image, 32, WITHOUT_MARKERS).inverted for image in images)
    assert all(preprocess_image(255 - image, 32, WITHOUT_MARKERS).inverted for image in images)


@pytest.mark.real_data
def test_real_radiographs_keep_their_lungs(data_root):
    lost = []
    for path in sorted((data_root / "lung-masks" / "images").glob("*.png"))[::15]:
        lungs = (decode(data_root / "lung-masks" / "masks" / path.name) > 127).astype(np.uint8)
        g = preprocess_image(decode(path), 256).geometry
        lost.append(1 - g.to_original_mask(g.to_processed_mask(lungs)).sum() / lungs.sum())
    assert max(lost) < 0.05
