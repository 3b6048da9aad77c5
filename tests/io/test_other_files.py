"""Kinds of files that exporters, anonymisers and phones write, with the grey that they mean."""

import io
import unicodedata

import numpy as np
import pytest
from dicom_files import dicom
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEGBaseline8Bit

from cxrlib.datasets import image_files
from cxrlib.datasets._files import masks_from_files, on_disk
from cxrlib.errors import CxrWarning, DataError, DecodeError
from cxrlib.io.decode import decode
from cxrlib.io.masks import read_mask

SQUARE_ROOT = np.rint((np.arange(4096) / 4095) ** 0.5 * 4095)


def field(bits=12) -> np.ndarray:
    y, x = np.mgrid[0:40, 0:56]
    values = np.rint((x / 55 * 0.6 + y / 39 * 0.4) * 0.85 * (2**bits - 1) + 0.05 * (2**bits - 1))
    return values.astype(np.uint16 if bits > 8 else np.uint8)


def near(path, expected) -> None:
    assert np.abs(decode(path).astype(float) - expected).max() <= 2


def table(count, first, bits, data, vr="US") -> Dataset:
    item = Dataset()
    item.add_new(0x00283002, vr, [count, first, bits])
    item.add_new(0x00283006, "OW", data)
    return item


LITTLE, BIG = SQUARE_ROOT.astype("<u2").tobytes(), SQUARE_ROOT.astype(">u2").tobytes()
EIGHT = np.rint(SQUARE_ROOT / 4095 * 255).astype(np.uint8).tobytes()


@pytest.mark.parametrize(
    "item, syntax",
    [
        (table(4096, 0, 12, LITTLE), ExplicitVRLittleEndian),
        (table(4096, 0, 16, LITTLE), ExplicitVRLittleEndian),  # deeper than its entries
        (table(4096, 0, 8, LITTLE), ExplicitVRLittleEndian),  # shallower
        (table(256, 0, 12, LITTLE), ExplicitVRLittleEndian),  # shorter than it is
        (table(4096, 0, 12, BIG), ExplicitVRLittleEndian),  # converted, and its words left as they were
        (table(4096, 0, 12, BIG), ExplicitVRBigEndian),
        (table(4096, 0, 16, EIGHT), ExplicitVRLittleEndian),  # two entries a word
    ],
    ids=["right", "deep", "shallow", "short", "swapped", "big", "packed"],
)
def test_a_voi_lut_is_believed_as_far_as_its_data_bear_it_out(tmp_path, item, syntax):
    path = dicom(tmp_path, field(), bits=12, syntax=syntax, VOILUTSequence=[item])
    near(path, SQUARE_ROOT[field()] / 4095 * 255)


@pytest.mark.parametrize("vr, first", [("US", 63_488), ("SS", -2048)])
def test_the_first_value_of_a_lut_has_the_sign_of_the_pixels(tmp_path, vr, first):
    signed = field().astype(np.int16) - 2048
    path = dicom(tmp_path, signed, VOILUTSequence=[table(4096, first, 12, LITTLE, vr)])
    near(path, SQUARE_ROOT[field()] / 4095 * 255)


def test_a_lut_that_is_too_short_for_the_pixels_is_an_error(tmp_path):
    path = dicom(tmp_path, field(), bits=12, VOILUTSequence=[table(4096, 0, 12, LITTLE[:2000])])
    with pytest.raises(DecodeError, match="1000 entries where its descriptor says 4096"):
        decode(path)


def test_a_modality_lut_of_twelve_bits(tmp_path):
    item = table(4096, 0, 12, LITTLE)
    path = dicom(tmp_path, field(), bits=12, ModalityLUTSequence=[item], WindowCenter=2048, WindowWidth=4096)
    near(path, SQUARE_ROOT[field()] / 4095 * 255)


@pytest.mark.parametrize(
    "empty",
    [
        {"RescaleSlope": None, "RescaleIntercept": None},
        {"PixelPaddingValue": None, "NumberOfFrames": None, "VOILUTFunction": ""},
        {"VOILUTSequence": [table(None, None, None, None)]},
        {"ModalityLUTSequence": [Dataset()], "VOILUTSequence": []},
        {"HighBit": None, "PixelRepresentation": None, "PhotometricInterpretation": ""},
    ],
    ids=lambda elements: next(iter(elements)),
)
def test_empty_elements_count_as_absent(tmp_path, empty):
    if empty.get("VOILUTSequence"):
        item = Dataset()
        item.LUTDescriptor, item.LUTData = None, None
        item["LUTDescriptor"].VR = "US"
        item["LUTData"].VR = "OW"
        empty = {"VOILUTSequence": [item]}
    near(
        dicom(tmp_path, field(), bits=12, WindowCenter=2048, WindowWidth=4096, **empty), field() / 4095 * 255
    )


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_left_justified_pixels_are_shifted_down(tmp_path, dtype):
    stored = (field() << 4).astype(dtype)
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    if dtype == np.int16:
        stored, window = ((field().astype(np.int16) - 2048) << 4), {"WindowCenter": 0, "WindowWidth": 4096}
    near(dicom(tmp_path, stored, bits=12, HighBit=15, **window), field() / 4095 * 255)


def test_bits_above_those_stored_are_cut_off_where_they_are_no_picture(tmp_path):
    noise = np.random.default_rng(0).integers(0, 16, field().shape).astype(np.uint16)
    path = dicom(tmp_path, field() | noise << 12, bits=12, WindowCenter=2048, WindowWidth=4096)
    near(path, field() / 4095 * 255)


def test_bits_above_those_stored_are_kept_where_they_are_the_picture(tmp_path):
    path = dicom(tmp_path, field(16), bits=12, WindowCenter=32_768, WindowWidth=65_536)
    near(path, field(16) / 65_535 * 255)


def test_padding_has_the_sign_of_the_pixels(tmp_path):
    stored = field().astype(np.int16) - 2048
    stored[:, :8] = -2048
    expected = np.where(np.arange(56) < 8, 0, 255 - field() / 4095 * 255)
    path = dicom(tmp_path, stored, PhotometricInterpretation="MONOCHROME1", WindowCenter=0, WindowWidth=4096)
    import pydicom

    dataset = pydicom.dcmread(path)
    dataset.add_new("PixelPaddingValue", "US", 63_488)
    dataset.save_as(path)
    near(path, expected)


def test_a_padding_value_amid_the_picture_makes_no_holes(tmp_path):
    value = int(field()[20, 30])
    path = dicom(tmp_path, field(), bits=12, PixelPaddingValue=value, WindowCenter=2048, WindowWidth=4096)
    near(path, field() / 4095 * 255)


def test_colour_of_twelve_bits_in_sixteen(tmp_path):
    near(dicom(tmp_path, np.dstack([field()] * 3), bits=12), field() / 4095 * 255)
    near(dicom(tmp_path, np.dstack([field()] * 3), bits=16), field() / 4095 * 255)


def test_a_palette_of_twelve_bits_in_sixteen(tmp_path):
    path = dicom(tmp_path, field(8), PhotometricInterpretation="PALETTE COLOR")
    import pydicom

    dataset = pydicom.dcmread(path)
    for colour in ("Red", "Green", "Blue"):
        dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [256, 0, 16])
        entries = np.rint(np.arange(256) * 4095 / 255).astype("<u2")
        setattr(dataset, f"{colour}PaletteColorLookupTableData", entries.tobytes())
    dataset.save_as(path)
    near(path, field(8))


def test_float_pixels_are_read(tmp_path):
    import pydicom

    path = dicom(tmp_path, field(), bits=12)
    dataset = pydicom.dcmread(path)
    for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(dataset, name)
    dataset.BitsAllocated = 32
    dataset.FloatPixelData = (field() / 4095).astype("<f4").tobytes()
    dataset.save_as(path)
    near(path, field() / 4095 * 255)


@pytest.mark.parametrize("marked", [True, False])
def test_a_jpeg_of_components_1_2_3_is_ycbcr_whatever_the_header_says(tmp_path, marked):
    import pydicom

    stream = io.BytesIO()
    Image.fromarray(field(8)).convert("RGB").save(stream, "JPEG", quality=98)
    data = stream.getvalue()
    if not marked:
        length = int.from_bytes(data[4:6], "big")
        data = data[:2] + data[4 + length :]
    path = dicom(tmp_path, np.dstack([field(8)] * 3))
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PixelData = encapsulate([data])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.save_as(path)
    near(path, field(8))


def test_a_multi_picture_jpeg_is_its_first_picture(tmp_path):
    image = Image.fromarray(field(8)).convert("RGB")
    image.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[image.resize((20, 28))])
    near(tmp_path / "a.jpg", field(8))


def test_a_tiff_with_a_preview_is_its_picture(tmp_path):
    import tifffile

    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(field(), metadata=None)
        writer.write(field()[::4, ::4], metadata=None, subfiletype=1)
    near(tmp_path / "a.tif", field() / 4095 * 255)


# --- known limits say what they are ---


@pytest.mark.parametrize(
    "name, kind",
    [("a.webp", "WebP"), ("a.gif", "GIF"), ("a.jp2", "JPEG 2000"), ("a.pdf", "PDF")],
)
def test_other_formats_are_named_with_what_converts_them(tmp_path, name, kind):
    Image.fromarray(field(8)).save(tmp_path / name)
    with pytest.raises(DecodeError, match=f"kind {kind}") as told:
        decode(tmp_path / name)
    assert "Fetch" not in str(told.value) and "Convert" in str(told.value)


def test_unsupported_compressions_are_no_damage(tmp_path):
    import pydicom
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", field(), compression="lerc")
    path = dicom(tmp_path, field())
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
    dataset.PixelData = encapsulate([b"\0" * 100])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.save_as(path)
    for file, what in ((tmp_path / "a.tif", "LERC"), (path, "MPEG2")):
        with pytest.raises(DecodeError, match=what) as told:
            decode(file)
        assert "Fetch" not in str(told.value) and "damaged" not in str(told.value)


def test_a_picture_that_lost_its_grey_levels_is_an_error(tmp_path):
    path = dicom(tmp_path, field(), bits=12, WindowCenter=30_000, WindowWidth=65_536)
    with pytest.raises(DecodeError, match="grey levels") as told:
        decode(path)
    assert "Check its window" in str(told.value)
    hot = field()
    hot[0, 0] = 65_535
    Image.fromarray(hot).save(tmp_path / "a.png")
    with pytest.raises(DecodeError, match="grey levels"):
        decode(tmp_path / "a.png")
    clear = Image.fromarray(field(8)).convert("LA")
    clear.putalpha(0)
    clear.save(tmp_path / "b.png")
    with pytest.raises(DecodeError, match="grey levels"):
        decode(tmp_path / "b.png")
    two = np.where(field() > 2000, np.uint16(4095), np.uint16(3))
    Image.fromarray(two).save(tmp_path / "c.png")
    assert np.unique(decode(tmp_path / "c.png")).tolist() == [0, 255]


# --- folders and masks ---


def test_a_scan_goes_by_content_and_says_what_it_left_out(tmp_path):
    for name in ("IM000001", "x.ima"):
        dicom(tmp_path, field(8)).rename(tmp_path / name)
    for name in ("b.jfif", "c.jpe", "._d.jpg"):
        Image.fromarray(field(8)).save(tmp_path / name, "JPEG")
    (tmp_path / "labels.csv").write_text("image,label\n")
    (tmp_path / ".hidden.csv").write_text("image,label\n")
    Image.fromarray(field(8)).save(tmp_path / "e.webp")
    with pytest.warns(CxrWarning, match=r"2 files .*left out: .*WebP, \*\.webp.*no image, \*\.csv"):
        found = image_files(tmp_path)
    assert [path.name for path in found] == ["IM000001", "b.jfif", "c.jpe", "x.ima"]
    for path in found:
        near(path, field(8))


def test_a_name_is_found_in_both_unicode_forms(tmp_path):
    stored, asked = (str(tmp_path / unicodedata.normalize(form, "Müller.png")) for form in ("NFD", "NFC"))
    Image.fromarray(field(8)).save(stored)
    near(on_disk(asked), field(8))
    near(image_files(asked)[0], field(8))


MASK = np.zeros((32, 32), np.uint8)
MASK[8:24, 4:12] = 1
MASK[8:24, 20:28] = 2


def _coloured() -> Image.Image:
    image = Image.fromarray(MASK, mode="P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 0, 128])
    return image


def _alpha(value: int) -> Image.Image:
    image = Image.new("LA", (32, 32), (value, 0))
    image.putalpha(Image.fromarray(np.where(MASK > 0, np.uint8(255), np.uint8(0))))
    return image


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(MASK), Image.fromarray((MASK > 0).astype(np.uint8)), Image.fromarray(MASK > 0),
        Image.fromarray(MASK.astype(np.uint16)), Image.fromarray((MASK > 0).astype(np.uint8) * 255),
        _coloured(), _coloured().convert("RGB"), _alpha(0), _alpha(255),
    ],
    ids=["labels", "0-1", "bits", "16 bits", "0-255", "palette", "colour", "black alpha", "white alpha"],
)  # fmt: skip
def test_a_mask_is_what_is_marked(tmp_path, image):
    image.save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png"), MASK > 0)
    masks = masks_from_files([tmp_path / "m.png"], image_size=16, cache_dir=tmp_path / "cache", workers=1)
    assert np.array_equal(masks[0], (MASK > 0)[::2, ::2])


def test_a_folder_of_empty_masks_is_an_error(tmp_path):
    Image.new("L", (32, 32)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="All 1 masks are empty"):
        masks_from_files([tmp_path / "a.png"], image_size=16, cache_dir=tmp_path / "cache", workers=1)
