"""Embeddings of a user's are read by name or by the labels' order, and never guessed."""

import builtins

import numpy as np
import pandas as pd
import pytest

from cxrlib.audit.embeddings import read_embeddings
from cxrlib.errors import ConfigError, DataError, MissingPackage

LISTED = ["c.png", "a.png", "b.png"]
VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def saved(tmp_path):
    def save(values, name="e.npy"):
        np.save(tmp_path / name, values)
        return tmp_path / name

    return save


def test_rows_of_npy_are_the_csvs_and_some_may_be_left_out(saved):
    assert read_embeddings(saved(VALUES), ["a.png", "c.png"], LISTED).tolist() == VALUES[[1, 0]].tolist()


def test_rows_of_a_table_are_found_by_name(tmp_path):
    table = pd.DataFrame(VALUES).assign(image=LISTED)
    table.to_csv(tmp_path / "e.csv", index=False)
    found = read_embeddings(tmp_path / "e.csv", ["x/b.png", "x/c.png"])
    assert found.tolist() == VALUES[[2, 0]].tolist() and found.dtype == np.float32


def test_names_that_look_like_numbers_stay_names(tmp_path):
    (tmp_path / "e.csv").write_text("image,0,1\n007,1,2\n7,3,4\n")
    assert read_embeddings(tmp_path / "e.csv", ["7", "007"]).tolist() == [[3, 4], [1, 2]]


def test_parquet_is_read_by_name_or_its_reader_is_asked_for(tmp_path, monkeypatch):
    table = pd.DataFrame(VALUES, columns=list("wxyz")).assign(image=LISTED)
    table.to_parquet(tmp_path / "e.parquet")
    assert read_embeddings(tmp_path / "e.parquet", ["b.png"]).tolist() == [VALUES[2].tolist()]
    imported = builtins.__import__

    def without(name, *rest, **more):
        if name.split(".")[0] in ("fastparquet", "pyarrow"):
            raise ImportError(name)
        return imported(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr("pandas.io.parquet.import_optional_dependency", without)
    with pytest.raises(MissingPackage, match="pip install pyarrow"):
        read_embeddings(tmp_path / "e.parquet", ["b.png"])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (VALUES[:2], "has 2 rows, and the labels' CSV lists 3 images"),
        (VALUES[:, 0], "of the shape"),
        (VALUES[None], "of the shape"),
        (np.array([["a"], ["b"], ["c"]]), "of the shape"),
        (np.array([{}, {}, {}], dtype=object), "cannot be read"),
        (np.where(VALUES == 5, np.nan, VALUES), "1 of 3 images hold NaN"),
        (np.where(VALUES == 5, 1e300, VALUES.astype(float)), "1 of 3 images hold NaN"),
        (np.ones((3, 4)), "all embeddings are alike"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_what_cannot_be_used_is_named(saved, values, said):
    with pytest.raises(DataError, match=said) as error:
        read_embeddings(saved(values), LISTED, LISTED)
    assert "e.npy" in str(error.value)


def test_bytes_that_are_no_array_are_an_error(tmp_path):
    for name in ("e.npy", "e.csv"):
        (tmp_path / name).write_bytes(b"\x93NUMPY\xff\x00garbage\x00")
        with pytest.raises(DataError, match=name):
            read_embeddings(tmp_path / name, LISTED, LISTED)


def test_images_that_are_missing_twice_or_not_numbers_are_named(tmp_path):
    path = tmp_path / "e.csv"
    path.write_text("image,0\na.png,1\nb.png,2\n")
    with pytest.raises(DataError, match=r"no embedding for 1 of 3 images(.|\n)*c\.png"):
        read_embeddings(path, LISTED)
    path.write_text("image,0\na.png,1\na.png,2\nb.png,1\nc.png,1\n")
    with pytest.raises(DataError, match="names images twice"):
        read_embeddings(path, LISTED)
    path.write_text("image,0\na.png,1\nb.png,x\nc.png,1\n")
    with pytest.raises(DataError, match="column '0' holds values that are no numbers"):
        read_embeddings(path, LISTED)
    path.write_text("image,0\na.png,1\n")
    with pytest.raises(DataError, match="several are called so"):
        read_embeddings(path, ["x/a.png", "y/a.png"])


def test_order_without_a_csv_and_unknown_kinds_are_refused(saved, tmp_path):
    with pytest.raises(ConfigError, match="names no images"):
        read_embeddings(saved(VALUES), LISTED)
    (tmp_path / "e.pkl").write_bytes(b"")
    for name in ("e.pkl", "gone.npy"):
        with pytest.raises(ConfigError, match=name):
            read_embeddings(tmp_path / name, LISTED, LISTED)
