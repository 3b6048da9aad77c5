"""The paediatric radiographs: whose they are, and which part they belong to."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrlib.cohort import split_by_patient
from cxrlib.datasets import kermany, load, verify
from cxrlib.errors import CxrWarning, DataError


def write_image(path: Path, value: int = 0, shape=(20, 24)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, value % 256, np.uint8)).save(path)


@pytest.fixture
def here(tmp_path):
    """Options that keep the decoded images of a test in its own folder."""
    return {"image_size": 16, "cache_dir": tmp_path / "cache", "workers": 1}


NAMES = {
    "train/NORMAL": ["IM-0115-0001.jpeg", "IM-0117-0001.jpeg", "NORMAL2-IM-0115-0001-0002.jpeg"],
    "train/PNEUMONIA": [f"person{i}_{kind}_{i}.jpeg" for i in range(1, 21) for kind in ("bacteria", "virus")],
    "val/NORMAL": ["NORMAL2-IM-1427-0001.jpeg"],
    "val/PNEUMONIA": ["person1946_bacteria_4874.jpeg"],
    "test/NORMAL": ["IM-0001-0001.jpeg"],
    "test/PNEUMONIA": ["person100_bacteria_475.jpeg", "person100_bacteria_477.jpeg", "person30_virus_6.jpeg"],
}


@pytest.fixture
def small_kermany(tmp_path):
    for number, (part, names) in enumerate(NAMES.items()):
        for name in names:
            write_image(tmp_path / "chest_xray" / part / name, 20 + number)
    (tmp_path / "chest_xray" / "train" / "NORMAL" / ".DS_Store").touch()
    (tmp_path / "chest_xray" / "train" / "NORMAL" / "._IM-0115-0001.jpeg").touch()
    return tmp_path


def load_small(folder, **options):
    with pytest.warns(CxrWarning, match=r"train 43, val 2, test 4 images; published are train 5,216"):
        return load("kermany", data_dir=folder, **options)


def test_kermany_reads_patient_and_subtype_off_the_names(small_kermany, here):
    table = load_small(small_kermany, **here).table.set_index("image_id")
    expected = {
        "train/NORMAL/IM-0115-0001.jpeg": ("IM-0115", "normal", 0),
        "train/NORMAL/NORMAL2-IM-0115-0001-0002.jpeg": ("NORMAL2-IM-0115", "normal", 0),
        "train/PNEUMONIA/person1_bacteria_1.jpeg": ("bacteria-1", "bacteria", 1),
        "train/PNEUMONIA/person1_virus_1.jpeg": ("virus-1", "virus", 1),
        "test/PNEUMONIA/person100_bacteria_477.jpeg": ("bacteria-100", "bacteria", 1),
    }
    for image, (patient, subtype, label) in expected.items():
        assert table.loc[image, ["patient_id", "subtype", "label"]].tolist() == [patient, subtype, label]


def test_kermany_validates_on_patients_of_the_training_part(small_kermany, here):
    table = load_small(small_kermany, **here).table
    test = table["published_part"] == "test"
    assert (table["split"] == "test").equals(test)
    by_hash = split_by_patient(table["patient_id"], (0.9, 0.1, 0.0), seed=0)
    assert (table["split"][~test] == by_hash[~test]).all()
    assert set(table["split"]) == {"train", "val", "test"}


@pytest.mark.parametrize("inside", ["", "chest_xray"])
def test_kermany_is_found_in_the_folder_or_is_the_folder(small_kermany, here, inside):
    assert len(load_small(small_kermany / inside, **here)) == 49


def test_kermany_with_an_empty_class_is_refused(small_kermany, here):
    for path in (small_kermany / "chest_xray" / "test" / "NORMAL").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="1 class folders are missing or hold no image") as caught:
        load("kermany", data_dir=small_kermany, **here)
    assert str(Path("test", "NORMAL")) in str(caught.value)


def test_kermany_elsewhere_says_what_it_looked_for(tmp_path, here):
    with pytest.raises(DataError, match="no chest_xray/train"):
        load("kermany", data_dir=tmp_path, **here)


def test_a_limit_draws_the_same_images_whatever_else_there_is(small_kermany, here):
    first = load_small(small_kermany, limit=10, **here)
    assert len(first) == 10
    assert load_small(small_kermany, limit=10, **here).table["image_id"].equals(first.table["image_id"])
    other = load_small(small_kermany, limit=10, seed=1, **here)
    assert set(other.table["image_id"]) != set(first.table["image_id"])


def test_bad_files_stop_the_loading_unless_skipped(small_kermany, here):
    bad = small_kermany / "chest_xray" / "test" / "NORMAL" / "IM-0001-0001.jpeg"
    bad.write_bytes(b"")
    with pytest.warns(CxrWarning), pytest.raises(DataError, match=r"IM-0001-0001\.jpeg: is empty"):
        load("kermany", data_dir=small_kermany, **here)
    cohort = load_small(small_kermany, skip_bad=True, **here)
    assert len(cohort) == 48 and "test/NORMAL/IM-0001-0001.jpeg" not in set(cohort.table["image_id"])
    assert cohort.info["skipped"] == [f"{bad}: is empty (0 bytes)."]
    assert Path(cohort.info["skipped_csv"]).is_file()


@pytest.mark.real_data
def test_kermany_has_the_published_counts_and_no_patient_in_two_parts(data_root, tmp_path):
    cohort = load("kermany", data_dir=data_root / "kermany224", image_size=24, cache_dir=tmp_path)
    table = cohort.table
    assert table["published_part"].value_counts().to_dict() == {"train": 5216, "val": 16, "test": 624}
    assert table["subtype"].value_counts().to_dict() == {"bacteria": 2780, "normal": 1583, "virus": 1493}
    assert table["patient_id"].nunique() == 4097
    merged = table["published_part"].replace("val", "train")
    assert merged.groupby(table["patient_id"]).nunique().max() == 1
    counts = table["split"].value_counts()
    assert counts["test"] == 624 and 0.07 < counts["val"] / (counts["val"] + counts["train"]) < 0.13

    # Why the id is numbering and number: images alike in both are alike, images alike in the number are not.
    pixels = cohort.images.reshape(len(cohort), -1).astype(np.float32)
    pixels -= pixels.mean(1, keepdims=True)
    pixels /= np.linalg.norm(pixels, axis=1, keepdims=True)
    parsed = table["patient_id"].str.extract(r"^(?P<numbering>.*)-(?P<number>\d+)$")
    number, numbering = parsed["number"].astype(int), parsed["numbering"]

    def likeness(first: str, second: str, apart: int) -> float:
        left = np.flatnonzero(numbering == first)
        right = pd.Series(np.flatnonzero(numbering == second), index=number[numbering == second] - apart)
        pairs = pd.DataFrame({"left": left, "number": number[left]}).join(right.rename("right"), on="number")
        pairs = pairs[pairs["right"].notna() & (pairs["left"] != pairs["right"])].astype(int)
        return float((pixels[pairs["left"]] * pixels[pairs["right"]]).sum(1).mean())

    for first, second, alike in (
        ("bacteria", "bacteria", True),
        ("virus", "virus", True),
        ("IM", "IM", True),
        ("NORMAL2-IM", "NORMAL2-IM", True),
        ("bacteria", "virus", False),
        ("IM", "NORMAL2-IM", False),
    ):
        chance = [likeness(first, second, apart) for apart in range(1, 21)]
        z = (likeness(first, second, 0) - np.mean(chance)) / np.std(chance)
        assert (z > 3) == alike, (first, second, z)


@pytest.mark.real_data
def test_kermany_verifies(data_root):
    checks = {check["name"]: check for check in verify("kermany", data_root / "kermany224", workers=2)}
    assert all(check["ok"] for check in checks.values()), checks
    # The published test part holds one picture under two patients.
    assert checks["identical files under two patient ids"]["found"] == [
        "test/NORMAL/NORMAL2-IM-0095-0001.jpeg",
        "test/NORMAL/NORMAL2-IM-0096-0001.jpeg",
    ]


def test_verify_finds_a_file_that_is_in_training_and_test(small_kermany):
    root = small_kermany / "chest_xray"
    (root / "test" / "NORMAL" / "IM-0001-0001.jpeg").write_bytes(b"")
    for path in root.rglob("person*.jpeg"):
        write_image(path, abs(hash(path.name)), shape=(20, 20 + abs(hash(path)) % 50))
    copied = (root / "train" / "PNEUMONIA" / "person1_virus_1.jpeg").read_bytes()
    (root / "test" / "PNEUMONIA" / "person30_virus_6.jpeg").write_bytes(copied)
    checks = {check["name"]: check for check in verify("kermany", small_kermany, workers=1)}
    found = checks["identical files in training and test part"]
    assert not found["ok"] and "test/PNEUMONIA/person30_virus_6.jpeg" in found["found"]
    assert checks["unreadable files"]["found"][0].endswith("is empty (0 bytes).")
    assert not checks["images in train"]["ok"] and checks["images in train"]["found"] == 43


def test_the_published_names_of_mendeley_are_understood():
    assert kermany._parse("BACTERIA-1008087-0001.jpeg") == ("BACTERIA-1008087", "bacteria")
    assert kermany._parse("NORMAL-1049278-0001.jpeg") == ("NORMAL-1049278", None)
    assert kermany._parse("scan.jpeg") == (None, None)
