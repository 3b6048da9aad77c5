"""How a picture was made is seen in its pixels, and called by its own name."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter
from scipy import ndimage

from cxrlib.audit.made import MADE, made
from cxrlib.audit.naming import explained, jpeg_traces
from cxrlib.audit.probes import Probes, judged_all, shaped, side_of
from cxrlib.audit.rules import PROBES
from cxrlib.audit.signs import around_lungs, sides
from cxrlib.audit.stats import Held, aucs, held_out
from cxrlib.cohort import Cohort
from cxrlib.evaluation.metrics import Estimate
from cxrlib.phantom.phantom import render
from cxrlib.studies.study_stats import holm

N, SIDE = 160, 160


def film(number: int) -> np.ndarray:
    """A smooth picture with the noise of a detector, as it comes from one."""
    rng = np.random.default_rng([number, 4])
    smooth = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 7)
    fine = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 0.7)
    return np.clip(120 + 45 * smooth / smooth.std() + 3 * fine / fine.std(), 1, 254).round().astype(np.uint8)


def jpeg(image, quality=60):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def half(image):
    small = Image.fromarray(image).resize((SIDE // 2, SIDE // 2), Image.Resampling.BICUBIC)
    return np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


KINDS = {
    "jpeg": (jpeg, "compression"),
    "resampled": (half, "texture"),
    "blurred": (lambda i: np.asarray(Image.fromarray(i).filter(ImageFilter.GaussianBlur(0.6))), "texture"),
    "sharpened": (
        lambda i: np.asarray(Image.fromarray(i).filter(ImageFilter.UnsharpMask(1, 60, 0))), "texture",
    ),
    "noisy": (lambda i: np.clip(i + np.random.default_rng(0).normal(0, 2, i.shape), 0, 255).astype(np.uint8),
              "texture"),
    "gamma": (lambda i: (255 * (i / 255) ** 1.15).round().astype(np.uint8), "grey_levels"),
    "six bits": (lambda i: i // 4 * 4, "grey_levels"),
}  # fmt: skip


@pytest.fixture(scope="module")
def films():
    return [film(number) for number in range(N)]


@pytest.fixture(scope="module")
def plain(films):
    return [made(one) for one in films]


def planted(plain, changed):
    labels = np.arange(N) % 2
    agrees = np.random.default_rng(1).random(N) < 0.9
    has = np.where(agrees, labels == 1, labels == 0)
    rows = [changed[i] if has[i] else plain[i] for i in range(N)]
    return labels, {name: np.stack([row[name] for row in rows]) for name in MADE}


def called(probes, traces="alike"):
    """The findings, each by what it is an echo of."""
    judged = judged_all(probes, holm([held.p_value for _, held, _, _ in probes.held.values()]))
    scores = {name: held.scores for name, (_, held, _, _) in probes.held.items()}
    return explained(judged, scores, probes.cohort.labels, traces)


@pytest.fixture(scope="module")
def old(films):
    return [jpeg(one, 85) for one in films]


@pytest.mark.parametrize("kind", KINDS)
def test_a_processing_that_goes_with_the_label_is_found_and_named(films, plain, kind, tmp_path):
    function, name = KINDS[kind]
    found = named(plain, [made(function(one)) for one in films], tmp_path)
    assert found[name].auc.value > 0.8
    assert [one for one in MADE if found[one].severity == "severe"] == [name]


@pytest.mark.parametrize("kind", ["resampled", "noisy", "six bits"])
def test_what_wipes_out_the_traces_of_an_old_jpeg_is_not_called_compression(old, kind, tmp_path):
    function, name = KINDS[kind]
    found = named([made(one) for one in old], [made(function(one)) for one in old], tmp_path)
    assert found[name].severity == "severe"
    assert found["compression"].severity == "warning" and found["compression"].explained_by == name


def named(plain, changed, tmp_path):
    labels, features = planted(plain, changed)
    ids = [f"{i:03}" for i in range(N)]
    table = pd.DataFrame({"image_id": ids, "patient_id": ids, "label": labels, "split": "train"})
    probes = Probes(Cohort(np.zeros((N, 8, 8), np.uint8), table), tmp_path, 399, 0)
    probes.ask(PROBES["whole"], lambda: features["texture"])
    for one in MADE:
        probes.ask(PROBES[one], lambda one=one: shaped(one, features[one]))
    return called(probes, jpeg_traces(features))


def test_what_a_film_shows_does_not_depend_on_the_label_where_nothing_is_planted(plain):
    labels = np.random.default_rng(3).permutation(np.arange(N) % 2)
    ids = np.arange(N).astype(str)
    for name in MADE:
        values = shaped(name, np.stack([one[name] for one in plain]))
        assert held_out(values, labels, ids, permutations=199, replicates=20).p_value > 0.01, name


def test_a_letter_at_one_place_leaves_how_the_picture_was_made_alone(films, plain):
    letter = [one.copy() for one in films]
    for one in letter:
        one[8:20, 8:11] = one[17:20, 8:18] = 235
    moved = [made(one) for one in letter]
    labels = np.repeat([0, 1], N)
    for name in ("compression", "grey_levels"):
        values = np.stack([one[name] for one in (*plain, *moved)])
        ids = np.tile(np.arange(N), 2).astype(str)
        assert held_out(values, labels, ids, permutations=19, replicates=20).auc.value < 0.65, name


def test_a_jpeg_saved_as_png_keeps_the_grid_and_a_shifted_one_is_still_odd(films):
    on = np.array([made(jpeg(one))["compression"] for one in films[:40]])
    off = np.array([made(one)["compression"] for one in films[:40]])
    labels = np.repeat([0, 1], 40)[:, None]
    assert aucs(labels, np.concatenate([off[:, -1:], on[:, -1:]]))[0] > 0.9  # steps at the grid's lines


@pytest.mark.parametrize("shape", [(8, 8), (31, 400), (40, 33)])
def test_a_flat_or_tiny_picture_has_no_numbers_and_the_same_shapes(shape):
    usual = made(film(0))
    for image in (np.zeros(shape, np.uint8), np.full((200, 200), 255, np.uint8)):
        found = made(image)
        assert {name: values.shape for name, values in found.items()} == {
            name: values.shape for name, values in usual.items()
        }
        assert np.isnan(found["texture"]).all()


def test_tiles_with_lung_are_left_out_where_there_are_others(films):
    image, lungs = films[0].copy(), np.zeros((32, 32), np.uint8)
    lungs[8:24, 8:24] = 1
    before = made(image, lungs)
    image[48:112, 48:112] = np.random.default_rng(0).integers(60, 200, (64, 64))
    after = made(image, lungs)
    for name in ("compression", "grey_levels"):  # the periods of the texture are of whole rows
        assert np.allclose(before[name][:-2], after[name][:-2], equal_nan=True)


def test_a_mirrored_phantom_has_its_heart_on_the_other_side():
    shown = render(24, image_size=128, seed=900_300)
    right = [sides(around_lungs(i, m)) for i, m in zip(shown.images, shown.lung_masks, strict=True)]
    wrong = [
        sides(around_lungs(i[:, ::-1], m[:, ::-1]))
        for i, m in zip(shown.images, shown.lung_masks, strict=True)
    ]
    which = side_of(np.concatenate([right, wrong]))[:, 0]
    assert abs(which[:24].mean() - which[24:].mean()) > 0.9
    assert np.isnan(side_of(np.stack([sides(None), right[0]]))[0, 0])


def test_a_letter_is_still_called_a_letter_where_texture_shows_it_too(tmp_path: Path):
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 2
    has = np.where(rng.random(300) < 0.9, labels, 1 - labels)
    ids = [f"{i:03}" for i in range(300)]
    table = pd.DataFrame({"image_id": ids, "patient_id": ids, "label": labels, "split": "train"})
    probes = Probes(Cohort(np.zeros((300, 8, 8), np.uint8), table), tmp_path, 399, 0)
    for name, spread in (("whole", 0.3), ("texture", 0.01), ("marker", 0.02), ("devices", 3.0)):
        scores = has + rng.normal(0, spread, 300)
        auc = aucs(labels[:, None], scores[:, None])[0]
        held = Held(Estimate(auc, auc - 0.04, auc + 0.04, 300), 0.0005, scores)
        probes.held[name] = (PROBES[name], held, False, {})
    found = called(probes)
    assert found["marker"].severity == "severe"
    assert found["texture"].explained_by == "marker" and found["texture"].severity == "warning"
    assert found["devices"].severity != "severe"
