"""Printed text is found in the pixels, and what only looks a little like it is not."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from cxrlib.audit.features import describe
from cxrlib.audit.page import sentence
from cxrlib.audit.run import _printed, audit_cohort
from cxrlib.cohort import Cohort
from cxrlib.datasets import load
from cxrlib.images.burned_in import _hats, printed, text_lines

SIDE = 384


@pytest.fixture(scope="module")
def phantoms():
    cohort = load("phantom", n=60, image_size=SIDE, seed=11)  # some say PORTABLE already
    return cohort.images[cohort.table["portable"].to_numpy() == 0][:40]


def written(image, text, height=14, at=(12, 10), grey=255, plate=None):
    """The image with text whose capitals are ``height`` pixels high, and the box that it covers."""
    picture = Image.fromarray(image)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=height / 0.72)
    left, top, right, bottom = pen.textbbox(at, text, font=font)
    if plate is not None:
        pen.rectangle((left - 4, top - 4, right + 4, bottom + 4), fill=plate)
    pen.text(at, text, font=font, fill=grey)
    return np.asarray(picture), (slice(int(top), int(bottom)), slice(int(left), int(right)))


@pytest.mark.parametrize("text", ["DOE^JANE", "12.03.1961", "PORTABLE", "Smith, John", "ID 4471902"])
@pytest.mark.parametrize("turns", [0, 1])
def test_a_line_of_print_is_found_where_it_is(text, turns):
    image, box = written(np.full((SIDE, SIDE), 40, np.uint8), text)
    marked = np.zeros(image.shape, bool)
    marked[box] = True
    image, marked = np.rot90(image, turns), np.rot90(marked, turns)
    found = np.zeros(image.shape, bool)
    for rows, columns in text_lines(np.ascontiguousarray(image)):
        found[rows, columns] = True
    assert (found & marked).sum() > 0.6 * marked.sum() and (found & ~marked).sum() < 0.4 * marked.sum()


@pytest.mark.parametrize(("grey", "plate"), [(255, 0), (0, 230), (255, None)])
def test_print_on_a_phantom_is_found_bright_or_dark(phantoms, grey, plate):
    shown = [written(image, "MUELLER, ANNA", 9, (30, 8), grey, plate)[0] for image in phantoms]
    assert np.mean([bool(text_lines(image)) for image in shown]) >= 0.9


def test_what_is_no_print_is_not_taken_for_it(phantoms):
    letters = [written(image, "L", 22, (330, 20))[0] for image in phantoms]
    assert np.mean([bool(text_lines(image)) for image in letters]) <= 0.05
    blank = np.full((SIDE, SIDE), 90, np.uint8)
    rng = np.random.default_rng(0)
    wires = Image.fromarray(blank)
    for start in range(20, 360, 30):
        ImageDraw.Draw(wires).line((start, 10, 380 - start, 370), fill=220, width=2)
    chess = (np.indices((SIDE, SIDE)) // 40).sum(0) % 2 * 200
    for image in (blank, wires, chess, rng.integers(0, 256, (SIDE, SIDE)), rng.normal(90, 8, (SIDE, SIDE))):
        assert text_lines(np.asarray(image).astype(np.uint8)) == []


@pytest.mark.parametrize("shape", [(7, 9), (6, 300), (131, 257)])
def test_strokes_are_what_scipys_openings_take_off(shape):
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    for side in (300, 700, 1024):
        reach = max(5, 2 * round(0.006 * side) + 1)
        scipys = [of(image, size=(reach, reach)) for of in (ndimage.white_tophat, ndimage.black_tophat)]
        whole = slice(0, shape[0]), slice(0, shape[1])
        for rows, columns in (whole, (slice(0, 5), slice(3, 8)), (slice(4, shape[0]), slice(2, shape[1]))):
            for ours, theirs in zip(_hats(image, side, rows, columns), scipys, strict=True):
                assert np.array_equal(ours, theirs[rows, columns])


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 1), (5, 5), (31, 33)])
def test_an_image_too_small_for_print_has_none(shape):
    assert text_lines(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)) == []


def test_files_are_looked_at_in_their_order_at_their_own_resolution(tmp_path):
    large, _ = written(np.full((2000, 1600), 60, np.uint8), "DOE^JANE", 30, (40, 50))
    Image.fromarray(large).save(tmp_path / "large.png")
    Image.fromarray(large[600:]).save(tmp_path / "none.png")
    Image.fromarray(large[:199, :199]).save(tmp_path / "small.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    names = ["none", "broken", "large", "small"]
    table = pd.DataFrame({"image_id": names, "patient_id": names, "label": [0, 1, 0, 1], "split": "test"})
    table["path"] = [str(tmp_path / f"{name}.png") for name in names]
    there = np.ones((4, 32, 32), np.uint8)
    found = describe(Cohort(40 * there, table, there), tmp_path / "work", progress=False)
    assert found["printed"].tolist() == [0, -1, 1, -1]
    assert np.isnan(found["texture"][1]).all() and np.isfinite(found["texture"][2]).all()
    assert printed(large[:199, :199]) == -1


def test_an_audit_names_the_files_with_print_and_shows_none_of_them(cxr, phantoms, tmp_path, monkeypatch):
    monkeypatch.setenv("CXRLIB_CACHE", str(tmp_path / "cache"))
    images = tmp_path / "images"
    images.mkdir()
    for number, image in enumerate(phantoms):
        if number in (3, 17):
            image, _ = written(image, "DOE^JANE", 14, (12, 10), plate=0)
        Image.fromarray(image).save(images / f"film{number:02}.png")
    names = [f"film{number:02}.png" for number in range(40)]
    table = pd.DataFrame({"image": names, "label": np.arange(40) % 2, "patient": names})
    table.to_csv(tmp_path / "labels.csv", index=False)
    out = tmp_path / "out"
    status, said, err = cxr("audit", images, "--labels", tmp_path / "labels.csv", "--out", out)
    assert status in (0, 2), err
    audit = json.loads((out / "audit.json").read_text(encoding="utf-8"))
    found = next(one for one in audit["findings"] if one["name"] == "printed_text")
    assert found["severity"] == "warning"
    assert found["detail"] == {"looked_at": 40, "denied": 0, "files": ["film03.png", "film17.png"]}
    assert "2 of 40 files show a line of printed characters" in " ".join(said.split())
    page = (out / "audit.html").read_text(encoding="utf-8")
    assert "<li>film03.png</li>" in page and "PORTABLE is harmless" in page
    taken = tmp_path / "labels.csv"
    status, _, err = cxr("audit", images, "--labels", taken, "--out", taken)
    assert status == 1 and "Nothing can be written to" in err and "Name another folder" in err


def test_an_audit_of_small_files_says_that_it_did_not_look_for_print(phantoms, tmp_path):
    rows = []
    for number, image in enumerate(phantoms):
        Image.fromarray(image[::4, ::4]).save(tmp_path / f"film{number:02}.png")
        rows.append({"image": f"film{number:02}.png", "label": number % 2, "patient_id": number})
    pd.DataFrame(rows).to_csv(tmp_path / "labels.csv", index=False)
    cohort = load("folder", data_dir=tmp_path, image_size=32, cache_dir=tmp_path / "cache")
    audit = audit_cohort(cohort, workers=1, progress=False)
    assert "printed_text" not in [one.probe.name for one in audit.findings]
    (said,) = [limit for limit in audit.limits if "printed text was not looked for" in limit]
    assert "none has 200 pixels and can be read." in said and "“Burned-in text” asks something else" in said


def test_headers_that_deny_the_text_are_counted(phantoms):
    names = ["a", "b", "c", "d"]
    table = pd.DataFrame({"image_id": names, "patient_id": names, "label": [0, 1, 0, 1], "split": "test"})
    said = pd.DataFrame({"burned_in": ["NO", "YES", None, "NO"]})
    found = _printed(Cohort(phantoms[:4], table), np.array([1, 1, 1, 0]), said)
    assert sentence(found) == "3 of 4 files show a line of printed characters; the headers of 1 deny it."
