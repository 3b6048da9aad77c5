"""Files that are looked at while they are decoded give what decoding them again would."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrlib.audit import looking
from cxrlib.audit.features import describe
from cxrlib.audit.looking import Look, found_before
from cxrlib.datasets import load
from cxrlib.datasets._files import beside
from cxrlib.lungs.masks import segment

SIDE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Phantoms: PNG, and JPEG that is decoded at half its size, one turned; noise without lungs; a stamp."""
    root = tmp_path_factory.mktemp("films")
    films = load("phantom", n=5, seed=31, image_size=520, progress=False).images
    for number in range(4):
        Image.fromarray(films[number][: 520 - 20 * number]).save(root / f"film {number}.png")
    large = Image.fromarray(films[4])
    large.save(root / "large.jpg", quality=90)
    turned = Image.Exif()
    turned[0x0112] = 6
    large.save(root / "turned.jpg", quality=90, exif=turned)
    noise = np.random.default_rng(7).integers(0, 255, (300, 280), np.uint8)
    Image.fromarray(noise).save(root / "noise.png")
    Image.fromarray(noise[:40, :40]).save(root / "stamp.png")
    names = sorted(path.name for path in root.iterdir())
    table = pd.DataFrame({"image": names, "patient": names, "label": np.arange(len(names)) % 2})
    table.to_csv(root / "labels.csv", index=False)
    return root


def loaded(folder, cache, **options):
    options |= {"patient_column": "patient", "cache_dir": cache, "workers": 1, "progress": False}
    return load("folder", data_dir=folder, image_size=SIDE, **options)


def looked_at(folder, cache, **options):
    with beside(Look):
        return loaded(folder, cache, **options)


def features(cohort, folder):
    return dict(describe(cohort, folder, workers=1, progress=False))


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
def test_one_decoding_finds_what_two_find(folder, tmp_path, monkeypatch, fit):
    plain = segment(loaded(folder, tmp_path, fit=fit), cache_dir=tmp_path, workers=1, progress=False)
    once = looked_at(folder, tmp_path, fit=fit)
    assert np.array_equal(plain.images, once.images) and np.array_equal(plain.lung_masks, once.lung_masks)
    columns = list(plain.table)
    pd.testing.assert_frame_equal(plain.table, once.table[columns])
    assert once.table["lungs_problem"].ne("").any() and once.table["lungs_plausible"].any()
    wanted, decoded = features(plain, tmp_path / "twice"), []
    monkeypatch.setattr(looking, "decode", lambda path: decoded.append(path) or looking_decode(path))
    found = features(once, tmp_path / "once")
    assert wanted.keys() == found.keys()
    for name, values in wanted.items():
        assert np.array_equal(values, found[name], equal_nan=values.dtype.kind == "f"), name
    # What has no lungs is measured again, with the others' lungs.
    assert decoded == once.table.loc[~once.table["lungs_plausible"], "path"].tolist()


looking_decode = looking.decode


def test_a_cohort_that_changed_since_is_looked_at_again(folder, tmp_path):
    cohort = looked_at(folder, tmp_path)
    rows = np.arange(len(cohort))[::-1]
    there = [one is not None for one in found_before(cohort).of(rows)]
    assert sum(there) >= 4
    assert [one is not None for one in found_before(cohort.take(rows)).of(range(len(rows)))] == there
    other = replace(cohort, lung_masks=np.roll(cohort.lung_masks, 1, axis=1))
    assert not any(found_before(other).of(rows))
    moved = cohort.with_columns(path=[path + "x" for path in cohort.table["path"]])
    assert not any(found_before(moved).of(rows))
    assert found_before(replace(cohort, lung_masks=None)) is None
    assert found_before(replace(cohort, info={})) is None
    shutil.rmtree(cohort.info["looked"])
    assert found_before(cohort) is None


def test_only_what_is_loaded_within_is_looked_at(folder, tmp_path):
    with pytest.raises(ValueError, match="on the way"), beside(Look):
        raise ValueError("on the way")
    cohort = loaded(folder, tmp_path)
    assert cohort.lung_masks is None and "looked" not in cohort.info
