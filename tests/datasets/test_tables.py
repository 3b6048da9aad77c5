"""Tables as other people write them: what is read, what each column and label becomes, and what is said."""

import gzip
import json
import re
import unicodedata
import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrlib.cli.console import named
from cxrlib.datasets import columns, folder, labels
from cxrlib.errors import CxrWarning, DataError
from cxrlib.io.tables import read_table

PLAIN = "image;label;p\na.png;1;x\nb.png;0;y\n"
COMMA = PLAIN.replace(";", ",")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", b"sep=;\n" + PLAIN.encode()),
        ("a.csv", b'\xef\xbb\xbf"sep=;"\r\n' + PLAIN.replace("\n", "\r\n").encode()),
        ("a.csv", b"# exported today\n# by, someone\n" + COMMA.encode()),
        ("a.csv", COMMA.encode() + b",,\n,,\n"),
        ("a.csv", COMMA.encode() + b"# the end\n"),
        ("a.csv.gz", gzip.compress(COMMA.encode())),
        ("a.csv", COMMA.replace("\n", ",,\n").encode()),
        ("a.tsv", PLAIN.replace(";", "\t").encode()),
        ("a.csv", PLAIN.replace(";", "|").encode()),
    ],
)
def test_a_table_is_read_however_a_spreadsheet_wrote_it(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    table, _ = read_table(tmp_path / name)
    assert table.to_numpy().tolist() == [["a.png", "1", "x"], ["b.png", "0", "y"]]
    assert list(table) == ["image", "label", "p"]


def test_a_workbook_is_read_or_what_reads_it_is_named(tmp_path):
    try:
        pd.DataFrame({"image": ["a.png"], "p": ["None"]}).to_excel(tmp_path / "a.xlsx", index=False)
    except ImportError:
        (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04 and more")
        with pytest.raises(DataError, match="openpyxl"):
            read_table(tmp_path / "a.xlsx")
        return
    assert read_table(tmp_path / "a.xlsx")[0].to_numpy().tolist() == [["a.png", "None"]]


def test_what_is_left_out_of_a_table_is_said(tmp_path):
    (tmp_path / "a.csv").write_text("# x\n" + COMMA + ",,\n")
    notes = read_table(tmp_path / "a.csv")[1]
    assert any("1 lines of comment" in note for note in notes) and any("1 blank" in note for note in notes)


@pytest.mark.parametrize(
    ("cells", "age", "read_as", "values"),
    [
        (["070Y", "006M", "026W"], True, "ages in years", [70, 0.5, 26 * 7 / 365.25]),
        (["070Y", "006M", "3650D"], False, "ages in years", [70, 0.5, 3650 / 365.25]),
        (["58,5", "60"], True, "ages in years", [58.5, 60]),
        (["0,5", "12,25", "-3"], False, "numbers with a decimal comma", [0.5, 12.25, -3]),
        (["1,250", "12", "1,000,000"], False, "numbers, comma between thousands", [1250, 12, 1_000_000]),
        (["1", "2.5", "N/A"], False, "numbers", [1, 2.5, np.nan]),
        (["1970-01-02", "1971-01-01"], False, "dates (Y-m-d), in days", [1, 365]),
        (["02.01.1970", "31.01.1970"], False, "dates (d.m.Y), in days", [1, 30]),
        (["01/31/1970", "01/02/1970"], False, "dates (m/d/Y), in days", [30, 1]),
    ],
)
def test_numbers_ages_and_dates_are_read_as_what_they_are(cells, age, read_as, values):
    read, reading = columns.typed_column(pd.Series(cells, dtype=str), age=age)
    np.testing.assert_allclose(read.astype(float), values)
    assert reading["read_as"] == read_as and reading["lost"] == 0


def test_lost_values_are_counted_and_named_but_not_a_date_of_birth():
    read, reading = columns.typed_column(
        pd.Series(["40"] * 97 + ["old", "03.04.1961", ""], name="age"), age=True
    )
    assert read.notna().sum() == 97
    assert reading == {
        "read_as": "ages in years", "values": 99, "lost": 2, "examples": ["old", "99.99.9999"],
    }  # fmt: skip
    assert "2 of 99 values" in columns.lost_much({"age": reading})[0]
    few = pd.Series([str(n) for n in range(300)] + ["x"], name="patient_name")
    assert columns.typed_column(few)[1] == {"read_as": "numbers", "values": 301, "lost": 1, "examples": []}


def test_spellings_that_differ_in_capitals_and_spaces_are_named_but_no_names_of_people():
    scanners = pd.Series(["GE", "ge", "Siemens", None, "GE"])
    people = pd.Series(["P 1", "P1", "P2", "p2", "P3"])
    said = columns.spelt_alike({"scanner": scanners, "patient_name": people, "ward": pd.Series(["A", "B"])})
    assert len(said) == 2
    assert "'scanner' has values that differ in capitals" in said[0] and "'GE', 'ge'" in said[0]
    assert "(2 of them)" in said[1] and "P1" not in said[1]


@pytest.mark.parametrize("cells", [["A", "B", "None", "NA"], ["1", "2", "1", "V1"]])
def test_categories_stay_text(cells):
    read, reading = columns.typed_column(pd.Series(cells))
    assert read.tolist() == cells and reading["read_as"] == "text"


@pytest.mark.parametrize(
    ("cells", "separator"),
    [
        (["Infiltration|Pneumonia", "No Finding|Mass", "pneumonia"], None),
        (["['pneumonia', 'infiltrates']", "['normal']", "['pneumonia']"], None),
        (["Pneumonia/Viral/COVID-19", "N/A", "Pneumonia"], None),
        (["mass; pneumonia", "none", "Pneumonia"], None),
        (["mass+pneumonia", "none", "Pneumonia"], "+"),
    ],
)
def test_a_finding_counts_among_others_of_its_cell(cells, separator):
    assert labels.has_finding(pd.Series(cells), "Pneumonia", separator=separator).tolist() == [
        True,
        False,
        True,
    ]


@pytest.mark.parametrize("cell", ["viral pneumonia", "No Pneumonia", "mass+pneumonia", "x|lobar pneumonia"])
def test_a_value_that_holds_the_positive_word_is_not_healthy_in_silence(cell):
    text = pd.Series(["Pneumonia", cell, cell])
    with pytest.raises(DataError, match="2 rows of column 'label'") as caught:
        labels.has_finding(text, "pneumonia")
    assert f"{cell!r}: 2 rows" in str(caught.value)
    assert labels.has_finding(text, "pneumonia", negative=cell).tolist() == [True, False, False]
    assert labels.has_finding(text, ["pneumonia", cell]).all()


def files(root, text, **options):
    rows = text.strip().splitlines()[1:]
    for row in rows:
        Image.new("L", (4, 4)).save(root / row.split(",")[0])
    (root / "labels.csv").write_text(text, encoding="utf-8")
    (root / "._labels.csv").write_bytes(b"\0\5\x16\7")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CxrWarning)
        return folder.files(root, **options)


@pytest.mark.parametrize(
    ("uncertain", "labelled"),
    [("ignore", {"a": 1, "b": 0}), ("positive", {"a": 1, "b": 0, "c": 1, "d": 0}),
     ("negative", {"a": 1, "b": 0, "c": 0, "d": 0})],
)  # fmt: skip
def test_uncertain_and_blank_labels_follow_the_policy(tmp_path, uncertain, labelled):
    table, info = files(
        tmp_path, "image,label\na.png,1.0\nb.png,0.0\nc.png,-1.0\nd.png,\n", uncertain=uncertain
    )
    assert {name[0]: label for name, label in zip(table["image_id"], table["label"], strict=True)} == labelled
    assert sum(info["classes"]["left out"].values()) == 4 - len(labelled)


def test_without_a_policy_uncertain_labels_are_an_error_that_names_it(tmp_path):
    with pytest.raises(DataError, match=re.escape("uncertain=ignore|positive|negative")):
        files(tmp_path, "image,label\na.png,1\nb.png,-1\n")


@pytest.mark.parametrize("word", ["None", "N/A", "NA", "null", "nan"])
def test_words_for_missing_are_classes_where_they_stand_in_a_label(tmp_path, word):
    table, info = files(tmp_path, f"image,label,site\na.png,{word},{word}\nb.png,ill,x\n", positive="ill")
    assert table["label"].tolist() == [0, 1] and table["site"].tolist() == [word, "x"]
    assert info["classes"] == {"ill": {"ill": 1}, "healthy": {word: 1}, "left out": {}}


def test_the_split_of_mimic_is_known(tmp_path):
    text = "image,label,split\na.png,1,train\nb.png,0,validate\nc.png,0,test\n"
    assert files(tmp_path, text)[0]["split"].tolist() == ["train", "val", "test"]


def test_options_that_mean_text_stay_text():
    given = named(["positive=2", "label_column=1", "negative=true", "separator=|", "limit=3"])
    assert given == {"positive": "2", "label_column": "1", "negative": "true", "separator": "|", "limit": 3}
    assert named(['positive=["a", 2]'])["positive"] == ["a", "2"]


@pytest.mark.parametrize("written", [r"sub\a.png", "sub/a.png"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_paths_are_found_as_other_systems_write_them(tmp_path, written, form):
    (tmp_path / "sub").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "sub" / f"{unicodedata.normalize(form, 'ü')}a.png")
    for other in ("NFC", "NFD"):
        name = written.replace("a.png", unicodedata.normalize(other, "ü") + "a.png")
        (tmp_path / "labels.csv").write_text(f"image,label\n{name},1\n", encoding="utf-8")
        with pytest.warns(CxrWarning, match="No patient column"):
            table, _ = folder.files(tmp_path)
        assert (tmp_path / "sub").samefile(table["path"].iloc[0].rpartition("/")[0])


def test_an_audit_finds_an_age_in_dicoms_writing_and_says_how_it_was_read(cxr, tmp_path):
    rng = np.random.default_rng(0)
    rows = ["image,label,patient_id,age"]
    for i in range(80):
        Image.fromarray(rng.integers(0, 255, (40, 40)).astype(np.uint8)).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{i % 2},p{i},{(70 if i % 2 else 40) + i % 7:03d}Y")
    rows[-1] = rows[-1].rpartition(",")[0] + ",old"
    rows[-2] = rows[-2].rpartition(",")[0] + ",young"
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    out = tmp_path / "out"
    _, text, err = cxr("audit", tmp_path, "--labels", "labels.csv", "--out", out, "--image-size", "32",
                       "--workers", "1")  # fmt: skip
    stored = json.loads((out / "audit.json").read_text())
    assert stored["cohort"]["columns"]["age"] == {
        "read_as": "ages in years", "values": 80, "lost": 2, "examples": ["young", "old"],
    }  # fmt: skip
    age = next(found for found in stored["findings"] if "age" in found["name"])
    assert age["severity"] in ("warning", "severe")
    assert "2 of 80 values" in err and "80 values, 2 lost" in " ".join(text.split())
    assert "80 values, 2 lost" in (out / "audit.html").read_text()
