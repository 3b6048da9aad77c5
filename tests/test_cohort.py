"""The Cohort refuses what would spoil a study, and splits by patient alone."""

import numpy as np
import pandas as pd
import pytest

from cxrlib.cohort import Cohort, Rows, concatenate, split_by_patient
from cxrlib.errors import CxrError, DataError


def make(n=6, **columns):
    table = pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(n)],
            "patient_id": [f"p{i}" for i in range(n)],
            "label": [0, 1] * (n // 2),
            "split": "train",
        }
    ).assign(**columns)
    return Cohort(np.zeros((n, 4, 4), np.uint8), table)


def test_a_patient_in_two_splits_is_refused_and_named():
    with pytest.raises(DataError, match=r"1 patients .*\n  - ann"):
        make(patient_id=["ann", "ann", "b", "c", "d", "e"], split=["train", "test"] + ["train"] * 4)


def test_a_leakage_study_may_share_patients():
    table = make().table.assign(patient_id="ann", split=["train", "test"] * 3)
    assert len(Cohort(np.zeros((6, 4, 4), np.uint8), table, allow_shared_patients=True)) == 6


def test_the_first_ten_offenders_are_listed_and_the_rest_counted():
    with pytest.raises(DataError) as caught:
        make(30, label=[7] * 30)
    assert str(caught.value).count("\n  - i") == 10
    assert "… and 20 more" in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ({"image_id": "same"}, "image_id"),
        ({"label": ["yes"] * 6}, "label"),
        ({"label": [0, 1, None, 0, 1, 0]}, "label"),
        ({"split": "holdout"}, "split"),
    ],
)
def test_a_bad_column_is_named(columns, named):
    with pytest.raises(DataError, match=f"'{named}'"):
        make(**columns)


def test_a_missing_column_is_named_beside_those_there_are():
    table = make().table.drop(columns="patient_id")
    with pytest.raises(DataError, match=r"no column 'patient_id'.*\n.*'image_id'"):
        Cohort(np.zeros((6, 4, 4), np.uint8), table)


def test_images_masks_and_table_must_agree():
    table = make().table
    with pytest.raises(DataError, match="5 images and 6 rows"):
        Cohort(np.zeros((5, 4, 4), np.uint8), table)
    with pytest.raises(DataError, match="float64"):
        Cohort(np.zeros((6, 4, 4)), table)
    with pytest.raises(DataError, match="lung_masks"):
        Cohort(np.zeros((6, 4, 4), np.uint8), table, lung_masks=np.zeros((6, 2, 2), np.uint8))


def test_labels_may_be_written_as_text():
    assert make(label=["0", "1", "1", "0", "1.0", "0"]).labels.tolist() == [0, 1, 1, 0, 1, 0]


def test_take_keeps_images_table_and_masks_aligned():
    cohort = make()
    images = np.arange(6, dtype=np.uint8).repeat(16).reshape(6, 4, 4)
    cohort = Cohort(images, cohort.table, lung_masks=images % 2)
    part = cohort.take(np.array([4, 1]))
    assert part.table["image_id"].tolist() == ["i4", "i1"]
    assert part.images[:, 0, 0].tolist() == [4, 1]
    assert part.lung_masks[:, 0, 0].tolist() == [0, 1]


def test_split_ignores_row_order_and_keeps_patients_whole():
    patients = np.array([f"p{i % 500}" for i in range(2000)])
    splits = split_by_patient(patients, seed=3)
    order = np.random.default_rng(0).permutation(2000)
    assert (split_by_patient(patients[order], seed=3) == splits[order]).all()
    assert pd.DataFrame({"p": patients, "s": splits}).groupby("p")["s"].nunique().max() == 1


def test_split_has_the_asked_shares_within_chance():
    splits = split_by_patient(np.arange(20_000), (0.7, 0.1, 0.2))
    shares = [np.mean(splits == name) for name in ("train", "val", "test")]
    assert np.allclose(shares, [0.7, 0.1, 0.2], atol=4 * np.sqrt(0.25 / 20_000))


def test_split_of_a_patient_is_the_same_everywhere():
    # Golden: a change of these is a change of every published split.
    assert split_by_patient(["1", "2", "3", "00000013", "person100"], seed=0).tolist() == GOLDEN_SPLITS


GOLDEN_SPLITS = ["test", "train", "train", "train", "train"]


def test_content_hash_notices_a_pixel_and_a_label():
    cohort = make()
    images = cohort.images.copy()
    images[3, 2, 1] = 1
    hashes = {
        cohort.content_hash(),
        cohort.with_images(images).content_hash(),
        cohort.with_columns(label=[1, 0] * 3).content_hash(),
    }
    assert len(hashes) == 3
    assert make().content_hash() == cohort.content_hash()
    flat = np.zeros((6, 2, 8), np.uint8)  # the same bytes in another shape
    assert cohort.with_images(flat).content_hash() != cohort.content_hash()
    undecodable = cohort.with_columns(image_id=[f"\udc80{i}" for i in range(6)])  # from a file's name
    assert undecodable.content_hash() != cohort.content_hash()


def test_errors_survive_a_process_pool():
    import pickle

    error = pickle.loads(pickle.dumps(DataError("bad", remedy="mend it", offenders=["a.png"])))
    assert isinstance(error, CxrError)
    assert str(error) == "bad\n  - a.png\nWhat to do: mend it"


def test_joined_cohorts_keep_order_and_what_all_of_them_have():
    a = make(site="A", age=50)
    b = make(site="B").with_columns(
        image_id=[f"b{i}" for i in range(6)], patient_id=[f"q{i}" for i in range(6)]
    )
    joined = concatenate([a, b.with_images(np.ones((6, 4, 4), np.uint8))])
    assert list(joined.table["site"]) == ["A"] * 6 + ["B"] * 6
    assert joined.images.mean(axis=(1, 2)).tolist() == [0] * 6 + [1] * 6
    assert "age" not in joined.table and joined.lung_masks is None


def test_cohorts_of_different_sizes_are_not_joined():
    with pytest.raises(DataError, match="image_size"):
        concatenate([make(), make().with_images(np.zeros((6, 5, 5), np.uint8))])


def test_a_cohort_says_what_it_holds():
    cohort = make(8, split=["train"] * 5 + ["test"] * 3, patient_id=["a", "a", *"bcdefg"])
    said = "Cohort('cohort': 8 images of 4×4, 7 patients, 50.0% pneumonia; train 5, val 0, test 3)"
    assert repr(cohort) == said


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (
            lambda: make().split("holdout"),
            "There is no split called 'holdout'.\nWhat to do: Use one of train, val, test.",
        ),
        (
            lambda: make(image_id="same"),
            "1 image ids occur more than once in column 'image_id'.\n  - same\n"
            "What to do: Give every image one row and an id of its own.",
        ),
        (
            lambda: make(patient_id="ann", split=["train", "test"] * 3),
            "1 patients have images in more than one split.\n  - ann\n"
            "What to do: Split by patient (cxrlib.cohort.split_by_patient), "
            "or pass allow_shared_patients=True if leakage is what you study.",
        ),
        (
            lambda: make(label=[0, 1, 2, 0, 1, 0]),
            "Column 'label' holds 1 values that are neither 0 nor 1.\n  - i2: 2\n"
            "What to do: Write 1 for pneumonia and 0 for its absence, or drop those rows.",
        ),
        (
            lambda: make(split="holdout"),
            "Column 'split' holds values that are no split.\n  - 'holdout'\n"
            "What to do: Use train, val, test.",
        ),
        (
            lambda: make().with_images(np.zeros((5, 4, 4), np.uint8)),
            "There are 5 images and 6 rows in the table.\n"
            "What to do: Give one row for each image, in the same order.",
        ),
        (
            lambda: make().with_images(np.zeros((6, 16), np.uint8)),
            "Images are uint8 of shape (6, 16).\nWhat to do: Give a uint8 array of shape (N, H, W).",
        ),
        (
            lambda: make().with_images([0] * 6),
            "Images are list of shape ?.\nWhat to do: Give a uint8 array of shape (N, H, W).",
        ),
        (
            lambda: make().with_images(make().images, lesion_masks=np.zeros((6, 4, 4), bool)),
            "lesion_masks are bool of shape (6, 4, 4).\n"
            "What to do: Give uint8 masks of 0 and 1 in the images' shape (6, 4, 4).",
        ),
        (
            lambda: split_by_patient(["a"], (0.5, 0.5, 0.5)),
            "The fractions (0.5, 0.5, 0.5) do not divide a whole into train, val and test.\n"
            "What to do: Give three shares, none negative, that sum to 1.",
        ),
    ],
)
def test_each_error_says_what_is_wrong_and_what_to_do(broken, said):
    with pytest.raises(DataError) as caught:
        broken()
    assert str(caught.value) == said


def test_numbers_as_ids_become_text():
    table = make().table.assign(image_id=range(6), patient_id=[7, 7, 8, 9, 9, 9])
    cohort = Cohort(np.zeros((6, 4, 4), np.uint8), table)
    assert cohort.table["image_id"].tolist() == list("012345") and cohort.patients.tolist() == list("778999")


def test_a_mask_of_rows_takes_those_rows():
    part = make().take(np.array([True, False, False, True, False, True]))
    assert part.table["image_id"].tolist() == ["i0", "i3", "i5"]


def test_a_lazy_split_reads_its_rows_when_asked():
    images = np.arange(6, dtype=np.uint8).repeat(16).reshape(6, 4, 4)
    whole = make(split=["train", "test"] * 3).with_images(images, lung_masks=images % 2)
    lazy, copied = whole.split("test", lazy=True), whole.split("test")
    assert isinstance(lazy.images, Rows) and lazy.lung_masks is None and len(lazy.images) == 3
    assert copied.lung_masks.shape == (3, 4, 4)
    assert np.array_equal(lazy.images[:], copied.images) and lazy.table.equals(copied.table)
    assert lazy.images.shape == (3, 4, 4) and lazy.images.dtype == np.uint8 and lazy.images.ndim == 3
    assert np.asarray(lazy.images, dtype=np.float32).dtype == np.float32
    again = lazy.take([2, 0]).images  # rows of rows
    assert again[:, 0, 0].tolist() == [5, 1]


def test_pages_that_were_read_are_given_back(tmp_path, monkeypatch):
    np.save(tmp_path / "images.npy", np.ones((8, 4, 4), np.uint8))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    given = []
    monkeypatch.setattr("cxrlib.cohort.MAPPED", 40)  # bytes: three images of 16
    monkeypatch.setattr("cxrlib.cohort._give_back", given.append)
    rows = Rows(mapped, range(8))
    for row in range(8):
        assert rows[row].sum() == 16
    assert len(given) == 2 and given[0] is mapped


def test_joined_cohorts_keep_masks_that_all_have():
    images = np.ones((6, 4, 4), np.uint8)
    a = make().with_images(images, lung_masks=images, lesion_masks=images)
    b = a.with_columns(image_id=list("abcdef"), patient_id=list("uvwxyz"))
    joined = concatenate([a, b], name="both")
    assert joined.lesion_masks.shape == joined.lung_masks.shape == (12, 4, 4)
    assert joined.name == "both" and joined.info == {"joined": ["cohort", "cohort"]}
    assert joined.table.index.tolist() == list(range(12))
    with pytest.raises(DataError, match=r"2 cohorts of sizes \[\(4, 4\), \(5, 5\)\] cannot be joined"):
        concatenate([make(), make().with_images(np.zeros((6, 5, 5), np.uint8))])
