"""Lung masks: right where the truth is known, refused where they cannot be right."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

import cxrlib
from cxrlib.cli.main import app
from cxrlib.errors import CheckpointError, ConfigError, DataError
from cxrlib.lungs import masks as lungs
from cxrlib.lungs.files import _names, apply_to_files
from cxrlib.lungs.masks import problem_with, segment
from cxrlib.lungs.network import dice


@pytest.fixture(scope="module")
def phantoms():
    return cxrlib.load("phantom", n=24, image_size=128, seed=3)


@pytest.fixture(scope="module")
def segmented(phantoms):
    return segment(phantoms)


def test_lungs_of_phantoms_are_found(phantoms, segmented):
    assert dice(segmented.lung_masks, phantoms.lung_masks).mean() > 0.95
    assert segmented.table["lungs_plausible"].mean() > 0.9


def test_masks_have_the_size_of_the_images_whatever_it_is(phantoms):
    large = cxrlib.load("phantom", n=3, image_size=200, seed=3)
    found = segment(large)
    assert found.lung_masks.shape == large.images.shape
    assert dice(found.lung_masks, large.lung_masks).min() > 0.9


def test_gain_and_offset_of_the_grey_values_do_not_matter(phantoms, segmented):
    weaker = (phantoms.images * 0.6 + 40).astype(np.uint8)
    found = segment(phantoms.with_images(weaker))
    assert dice(found.lung_masks, segmented.lung_masks).min() > 0.98


def test_a_second_segmentation_comes_from_the_cache(phantoms, segmented, monkeypatch):
    def never(*args):
        raise AssertionError("segmented again")

    monkeypatch.setattr(lungs, "_segment_into", never)
    again = segment(phantoms)
    assert (again.lung_masks == segmented.lung_masks).all()
    assert again.table["lungs_problem"].equals(segmented.table["lungs_problem"])


def test_a_segmentation_that_was_cut_off_goes_on_where_it_was(phantoms, segmented, tmp_path, monkeypatch):
    monkeypatch.setattr(lungs, "_CHUNK", 8)
    real, calls = lungs.predictor(), []

    def dies_in_the_second_chunk(images):
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(images)

    monkeypatch.setattr(lungs, "predictor", lambda *_: dies_in_the_second_chunk)
    with pytest.raises(KeyboardInterrupt):
        segment(phantoms, cache_dir=tmp_path, workers=1)
    calls[:] = [0, 0]
    resumed = segment(phantoms, cache_dir=tmp_path, workers=1)
    assert calls == [0, 0, 8, 8]  # the first eight are not done again
    assert (resumed.lung_masks == segmented.lung_masks).all()


def test_two_processes_find_the_same_lungs(phantoms, segmented, tmp_path, monkeypatch):
    monkeypatch.setattr(lungs, "_CHUNK", 8)
    found = segment(phantoms, cache_dir=tmp_path, workers=2)
    assert (found.lung_masks == segmented.lung_masks).all()
    assert found.table["lungs_problem"].equals(segmented.table["lungs_problem"])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda images: np.rot90(images, axes=(1, 2)),
        lambda images: np.zeros_like(images),
        lambda images: np.random.default_rng(0).integers(0, 256, images.shape, dtype=np.uint8),
        lambda images: 255 - images,
    ],
    ids=["lying on the side", "black", "noise", "negative"],
)
def test_what_is_no_upright_radiograph_is_flagged_and_gets_no_mask(phantoms, spoil):
    found = segment(phantoms.with_images(np.ascontiguousarray(spoil(phantoms.images))))
    flagged = ~found.table["lungs_plausible"].to_numpy()
    assert flagged.mean() > 0.9
    assert (found.lung_masks[flagged] == 0).all()
    assert (found.table.loc[flagged, "lungs_problem"] != "").all()


def test_lungs_that_touch_are_parted_where_they_are_narrowest():
    probability = np.zeros((1, 128, 128), np.float32)
    probability[0, 30:90, 24:60] = probability[0, 30:90, 66:102] = 1
    probability[0, 30:36, 60:66] = 1  # a bridge at the apices
    (mask,), (problem,) = lungs.lung_masks(probability, (128, 128))
    assert problem == ""
    assert mask[40:80, 24:60].all() and mask[40:80, 66:102].all()
    assert (probability[0] > 0.5).sum() - mask.sum() < 60


def _pair(left=(30, 90, 24, 54), right=(30, 90, 74, 104)):
    mask = np.zeros((128, 128), bool)
    for top, bottom, start, stop in (left, right):
        mask[top:bottom, start:stop] = True
    return mask


def test_a_pair_of_lungs_has_no_problem():
    assert problem_with(_pair()) == ""


@pytest.mark.parametrize(
    ("mask", "problem"),
    [
        (np.zeros((128, 128), bool), "no lung"),
        (_pair(right=(30, 90, 54, 104)), "one region"),
        (_pair((30, 48, 30, 46), (30, 48, 74, 90)), "covers"),
        (_pair(right=(30, 48, 80, 96)), "a fifth"),
        (_pair((10, 60, 40, 80), (66, 118, 40, 80)), "side by side"),
        (_pair((70, 127, 24, 54), (92, 127, 74, 104)), "side by side|middle"),
        (_pair((40, 80, 4, 60), (40, 80, 66, 120)), "wider"),
        (_pair() | (np.arange(128)[:, None] > 116) & (np.arange(128) > 60), "3 regions"),
    ],
)
def test_what_is_no_pair_of_lungs_is_called_what_it_is(mask, problem):
    import re

    assert re.search(problem, problem_with(mask))


def test_the_phantoms_own_masks_are_plausible(phantoms):
    assert [problem_with(mask.astype(bool)) for mask in phantoms.lung_masks] == [""] * len(phantoms)


@pytest.mark.real_data
def test_reference_masks_of_both_hospitals_are_plausible_but_for_two(data_root):
    cohort = cxrlib.load("lung_masks", data_dir=data_root / "lung-masks", image_size=128)
    problems = [problem_with(mask.astype(bool)) for mask in cohort.lung_masks]
    # One reference is in three pieces, and one shows a lung of which little is left.
    assert set(cohort.table["image_id"][np.array(problems) != ""]) == {"CHNCXR_0361_1", "CHNCXR_0603_1"}


@pytest.mark.real_data
def test_what_ships_finds_the_lungs_of_a_hospital_it_has_not_seen(data_root):
    cohort = cxrlib.load("lung_masks", data_dir=data_root / "lung-masks", image_size=128)
    shenzhen = cohort.take(np.flatnonzero(cohort.table["site"] == "Shenzhen")[::8])
    found = segment(shenzhen)
    assert found.table["lungs_plausible"].mean() > 0.95
    assert dice(found.lung_masks, shenzhen.lung_masks).mean() > 0.94


def test_missing_weights_are_an_error(phantoms, tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.safetensors"):
        segment(phantoms, weights=tmp_path / "none.safetensors")


@pytest.fixture
def files(tmp_path):
    """A tall 16-bit PNG and a JPEG of phantoms, in their true proportions."""
    images = cxrlib.load("phantom", n=2, image_size=256, seed=3).images
    tall = np.vstack([np.zeros((64, 256), np.uint8), images[0]])
    Image.fromarray(tall.astype(np.uint16) * 257).save(tmp_path / "tall.png")
    Image.fromarray(images[1]).save(tmp_path / "plain.jpg")
    return [tmp_path / "tall.png", tmp_path / "plain.jpg"]


def test_masks_of_files_have_the_files_size_and_place(files, tmp_path):
    truth = cxrlib.load("phantom", n=2, image_size=256, seed=3).lung_masks
    table = apply_to_files(files, tmp_path / "out")
    assert table["plausible"].all()
    tall, plain = (np.asarray(Image.open(tmp_path / "out" / name)) for name in table["file"])
    assert dice((tall[64:] // 255)[None], truth[:1])[0] > 0.93
    assert dice((plain // 255)[None], truth[1:])[0] > 0.93
    top = table.loc[0, "top"]
    assert tall[top].any() and not tall[:top].any()


@pytest.mark.parametrize("what", ["crop", "keep", "remove", "frame"])
def test_files_are_cut_as_their_cohort_would_be(files, tmp_path, what):
    table = apply_to_files(files, tmp_path / "out", what=what)
    made = np.asarray(Image.open(tmp_path / "out" / table.loc[1, "file"]))
    image = np.asarray(Image.open(files[1]))
    if what == "crop":
        assert made.shape[0] == made.shape[1] < 256
    else:
        assert made.shape == image.shape
        assert 0.05 < (made == image).mean() < 0.95


def test_files_of_one_name_do_not_overwrite_each_other(files, tmp_path):
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / files[1].name
    twin.write_bytes(files[1].read_bytes())
    table = apply_to_files([files[1], twin], tmp_path / "out")
    assert list(table["file"]) == ["plain.png", "other/plain.png"]
    assert all((tmp_path / "out" / name).is_file() for name in table["file"])


def test_names_of_outputs_are_never_the_same():
    names = ["x-1.png", "a/x.png", "b/x.png", "x.png", "x.jpg", "X.tif", "1.2.840", "1.2.841"]
    made = _names([Path("images") / name for name in names])
    assert made[:3] == ["x-1.png", "a/x.png", "b/x.png"] and made[-2:] == ["1.2.840.png", "1.2.841.png"]
    assert len({name.casefold() for name in made}) == len(names)


def test_an_input_is_never_overwritten(files, tmp_path):
    with pytest.raises(ConfigError, match=r"tall\.png"):
        apply_to_files(files, tmp_path)


def test_bad_files_are_all_named_and_the_others_done(files, tmp_path):
    bad = [tmp_path / "bad.png", tmp_path / "empty.png"]
    bad[0].write_bytes(b"nothing")
    bad[1].touch()
    with pytest.raises(DataError, match=r"(?s)2 of 4 .*bad\.png.*empty\.png"):
        apply_to_files([bad[0], *files, bad[1]], tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.png"))) == 2
    table = apply_to_files([*bad, *files], tmp_path / "out", skip_bad=True)
    assert list(table["plausible"]) == [False, False, True, True]
    assert "bad.png" not in table.loc[0, "problem"]


def test_negatives_are_recognised_and_keep_their_greys(files, tmp_path):
    image = np.asarray(Image.open(files[1]))
    Image.fromarray(255 - image).save(tmp_path / "negative.png")
    Image.fromarray(image).save(tmp_path / "positive.png")
    pair = [tmp_path / "negative.png", tmp_path / "positive.png"]
    table = apply_to_files(pair, tmp_path / "out", what="keep")
    assert list(table["negative"]) == [True, False] and table["plausible"].all()
    negative, positive = (np.asarray(Image.open(tmp_path / "out" / name)) for name in table["file"])
    kept = positive > 0
    assert (negative[kept] == 255 - positive[kept]).mean() > 0.98


def test_a_margin_that_makes_no_sense_is_refused(files, tmp_path):
    for what, margin in (("crop", -5), ("mask", 0.1), ("frame", 0.5)):
        with pytest.raises(ConfigError, match="margin"):
            apply_to_files(files, tmp_path / "out", what=what, margin=margin)


def test_a_hospital_without_its_folder_is_an_error(tmp_path):
    result = CliRunner().invoke(app, ["lungs", "evaluate", "--site", "Shenzhen"])
    assert isinstance(result.exception, ConfigError) and "--data-dir" in str(result.exception)


def test_the_command_writes_masks_and_a_table(files, tmp_path):
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["lungs", "apply", *map(str, files), "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    assert [row["file"] for row in json.loads(result.stdout)] == ["tall.png", "plain.png"]
    assert len(pd.read_csv(out / "lungs.csv")) == 2


def test_the_command_measures_dice(tmp_path):
    result = CliRunner().invoke(app, ["lungs", "evaluate", "--json"])
    assert result.exit_code == 0, result.output
    numbers = json.loads(result.stdout)
    assert numbers["dice"]["low"] < numbers["dice"]["value"] < numbers["dice"]["high"]
    assert len(numbers["worst"]) == 10
