"""What a DICOM file becomes as pixels: rescale, windows, padding, transfer syntaxes."""

import numpy as np
import pydicom
import pytest
from dicom_files import dicom, ramp
from pydicom.pixels import apply_voi_lut
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from cxrlib.errors import DecodeError
from cxrlib.io.decode import decode


def test_eight_bit_dicom_without_a_window_is_returned_as_stored(tmp_path):
    assert np.array_equal(decode(dicom(tmp_path, ramp())), ramp())


def test_monochrome1_is_monochrome2_inverted(tmp_path):
    path = dicom(tmp_path, 255 - ramp(), PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(decode(path), ramp())


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_a_deep_dicom_without_a_window_fills_the_range(tmp_path, bits):
    stored = ramp(top=2**bits - 1, dtype=np.uint16)
    assert np.abs(decode(dicom(tmp_path, stored, bits=bits)).astype(int) - ramp()).max() <= 1


def test_one_hot_pixel_does_not_make_a_dicom_black(tmp_path):
    stored = ramp(100, 100, top=1000, dtype=np.uint16)
    stored[0, 0] = 65_535
    assert np.abs(decode(dicom(tmp_path, stored)).astype(int) - ramp(100, 100))[1:].max() <= 1


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_agree_with_pydicoms(tmp_path, function):
    stored = ramp(top=4095, dtype=np.uint16)
    path = dicom(tmp_path, stored, bits=12, WindowCenter=1800, WindowWidth=900, VOILUTFunction=function)
    reference = apply_voi_lut(stored, pydicom.dcmread(path)) * (255 / 4095)
    assert np.abs(decode(path) - reference).max() <= 1


def test_the_window_is_applied_after_the_rescale(tmp_path):
    stored = ramp(top=4095, dtype=np.uint16)
    elements = {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 1000, "WindowWidth": 2001}
    decoded = decode(dicom(tmp_path, stored, bits=12, **elements))
    # 2 × stored − 1000 runs through the window from 0 to 2000, which is stored 500 to 1500.
    assert (decoded[stored <= 500] == 0).all() and (decoded[stored >= 1500] == 255).all()
    assert abs(int(decoded[np.abs(stored.astype(int) - 1000).argmin() // 60, :].mean()) - 127) < 10


def test_the_first_of_several_windows_counts(tmp_path):
    stored = ramp(top=4095, dtype=np.uint16)
    two = dicom(tmp_path, stored, bits=12, WindowCenter=[1000, 3000], WindowWidth=[500, 500])
    assert (decode(two)[stored > 1300] == 255).all()


def test_a_voi_lut_is_looked_up(tmp_path):
    table = pydicom.Dataset()
    table.LUTDescriptor = [256, 0, 8]
    table.LUTData = np.arange(255, -1, -1, dtype="<u2").tobytes()
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"
    assert np.array_equal(decode(dicom(tmp_path, ramp(), VOILUTSequence=[table])), 255 - ramp())


def test_signed_pixels_keep_their_order(tmp_path):
    stored = (ramp(top=3000, dtype=np.int16) - 1500).astype(np.int16)
    assert np.abs(decode(dicom(tmp_path, stored)).astype(int) - ramp()).max() <= 1


def test_padding_is_black_and_sets_no_range(tmp_path):
    stored = ramp(top=3000, dtype=np.uint16) + 1000
    stored[:, :10] = 65_000
    path = dicom(tmp_path, stored, PixelPaddingValue=65_000, PhotometricInterpretation="MONOCHROME1")
    decoded = decode(path)
    assert (decoded[:, :10] == 0).all() and decoded[:, 10:].max() == 255 and decoded[:, 10:].min() == 0


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("encapsulate", [None, RLELossless, JPEG2000Lossless])
def test_transfer_syntaxes_give_the_same_pixels(tmp_path, syntax, encapsulate):
    if encapsulate == JPEG2000Lossless and syntax == ImplicitVRLittleEndian:
        pytest.skip("one JPEG 2000 is enough")
    pixels = ramp().copy()
    assert np.array_equal(decode(dicom(tmp_path, pixels, syntax=syntax, encapsulate=encapsulate)), pixels)


@pytest.mark.parametrize(
    "name", ["MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_RLE.dcm"]
)
def test_losslessly_compressed_dicom_equals_the_plain_file(name):
    from pydicom.data import get_testdata_file

    plain = decode(get_testdata_file("MR_small.dcm", download=False))
    assert np.array_equal(decode(get_testdata_file(name, download=False)), plain)


def test_colour_dicom_becomes_luma(tmp_path):
    assert np.array_equal(decode(dicom(tmp_path, np.repeat(ramp()[..., None], 3, 2))), ramp())


def test_a_dicom_without_its_ending_is_known_by_its_content(tmp_path):
    path = dicom(tmp_path, ramp()).rename(tmp_path / "IM0001")
    assert np.array_equal(decode(path), ramp())


def test_dicom_with_several_frames_is_refused(tmp_path):
    path = dicom(tmp_path, ramp(), NumberOfFrames=2, PixelData=ramp().tobytes() * 2)
    with pytest.raises(DecodeError, match="2 frames"):
        decode(path)


def test_truncated_dicom_is_refused(tmp_path):
    path = dicom(tmp_path, ramp())
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DecodeError, match=r"image\.dcm"):
        decode(path)


def test_dicom_without_an_image_is_refused(tmp_path):
    path = dicom(tmp_path, ramp())
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)
    with pytest.raises(DecodeError, match="without pixel data"):
        decode(path)


def test_every_truncation_of_a_small_file_is_refused(tmp_path):
    path = dicom(tmp_path, ramp(8, 8))
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(DecodeError):
            decode(path)


def test_a_dicom_that_claims_too_many_pixels_is_refused(tmp_path):
    with pytest.raises(DecodeError, match="limit is 50,000,000"):
        decode(dicom(tmp_path, ramp(), Rows=60_000, Columns=60_000))
