"""Facts of files, and pictures that occur twice."""

import zlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrlib.audit import files
from cxrlib.audit.features import _blocks
from cxrlib.audit.tables import asked_columns, column_features, levels_by_label
from cxrlib.io.decode import resize
from cxrlib.phantom.phantom import render


@pytest.fixture(scope="module")
def films():
    return render(60, image_size=128, seed=900_100).images


def _thumbnails(images):
    return np.concatenate([_blocks(image[None], 64) for image in images]).round().astype(np.uint8)


def test_different_patients_are_no_duplicates(films):
    assert not len(files.duplicates(_thumbnails(films)))


def test_copies_are_found_though_resized_reencoded_or_brightened(films, tmp_path):
    small = resize(np.asarray(Image.fromarray(films[0]).resize((100, 100))), 128)
    Image.fromarray(films[1]).save(tmp_path / "a.jpg", quality=60)
    bright = np.clip(films[2] * 0.8 + 40, 0, 255).astype(np.uint8)
    seen = _thumbnails([*films, small, np.asarray(Image.open(tmp_path / "a.jpg")), bright, films[3]])
    pairs = files.duplicates(seen)
    pd.testing.assert_frame_equal(pairs, files.duplicates([seen[:20], seen[20:61], seen[61:]]))
    assert set(zip(pairs["a"], pairs["b"], strict=True)) == {(0, 60), (1, 61), (2, 62), (3, 63)}
    assert pairs.set_index("a")["exact"].to_dict() == {0: False, 1: False, 2: False, 3: True}


def test_headers_tell_format_tables_and_size(films, tmp_path):
    paths = [str(tmp_path / name) for name in ("a.png", "b.jpg", "c.jpg", "d.png", "e.png")]
    Image.fromarray(films[0]).save(paths[0])
    Image.fromarray(films[0]).save(paths[1], quality=90)
    Image.fromarray(films[0]).convert("RGB").resize((200, 100)).save(paths[2], quality=50)
    Image.fromarray(films[0].astype(np.uint16) * 257).save(paths[3])
    (tmp_path / "e.png").write_bytes(b"broken")
    facts = files.file_facts(paths)
    assert facts["format"].tolist()[:4] == ["PNG", "JPEG", "JPEG", "PNG"]
    assert facts["mode"].tolist()[:4] == ["L", "L", "RGB", "I;16"]
    assert facts["bits"].tolist()[:4] == [8, 8, 8, 16]
    assert facts["tables"][1] != facts["tables"][2]
    assert (facts["width"][2], facts["height"][2], facts["aspect"][2]) == (200, 100, 2.0)
    assert facts.iloc[4].isna().all()


def test_what_wrote_a_png_is_known_though_it_stands_behind_the_pixels(films, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(films[0]).save(path)
    data = path.read_bytes()
    text = b"tEXtSoftware\0scanner 3"
    chunk = (len(text) - 4).to_bytes(4, "big") + text + zlib.crc32(text).to_bytes(4, "big")
    path.write_bytes(data[:-12] + chunk + data[-12:])
    assert files.file_facts([str(path)])["written_by"].tolist() == ["scanner 3"]


def test_columns_that_name_each_image_or_repeat_a_role_are_not_asked():
    n = 100
    table = pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(n)], "label": np.arange(n) % 2, "path": "x",
            "accession": np.arange(n), "note": [f"text {i}" for i in range(n)], "ward": ["A", "B"] * 50,
            "constant": 1, "age": np.linspace(20, 80, n),
        }
    )  # fmt: skip
    asked, left_out = asked_columns(table)
    assert asked == ["ward", "age"]
    assert set(left_out) == {"accession", "note", "constant"}


def test_missing_values_and_rare_levels_are_features_of_their_own():
    table = pd.DataFrame({"ward": ["A"] * 50 + ["B"] * 48 + ["C", "D"], "age": [np.nan] * 20 + [50.0] * 80})
    features = column_features(table, ["ward", "age"])
    assert np.isfinite(features).all()
    assert 20 in features.sum(axis=0)  # whether the age is missing


def test_levels_say_how_often_the_label_occurs():
    found = levels_by_label(pd.Series(["AP"] * 4 + ["PA"] * 2), np.array([1, 1, 1, 0, 0, 0]))
    assert found == [
        {"level": "AP", "images": 4, "share_ill": 0.75},
        {"level": "PA", "images": 2, "share_ill": 0.0},
    ]
