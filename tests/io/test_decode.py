"""What a file on disk becomes as pixels, and which files are refused."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cxrlib.errors import ConfigError, DecodeError
from cxrlib.io.decode import decode, decode_with_shape, placed, resize


def ramp(height=40, width=60, top=255, dtype=np.uint8) -> np.ndarray:
    """A picture that uses the whole range and has no symmetry."""
    values = np.linspace(0, top, height * width).reshape(height, width)
    return np.rint(values).astype(dtype)


def saved(tmp_path, image: Image.Image, name="image.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


# --- PNG, JPEG, TIFF ---


def test_a_plain_png_is_read_as_pillow_reads_it_and_a_marked_one_too(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (37, 51), dtype=np.uint8)
    plain = saved(tmp_path, Image.fromarray(noise))
    assert np.array_equal(decode(plain), noise)
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter to the right
    assert np.array_equal(decode(saved(tmp_path, Image.fromarray(noise), exif=turned)), np.rot90(noise, -1))
    assert np.array_equal(decode(saved(tmp_path, Image.fromarray(noise), transparency=3)), noise)


def test_a_plain_png_that_holds_too_few_pixels_is_damaged(tmp_path):
    data = saved(tmp_path, Image.fromarray(ramp())).read_bytes()
    short = zlib.compress(bytes(61 * 39))  # a row is missing, and every checksum is right
    chunk = b"IDAT" + short
    chunk = struct.pack(">I", len(short)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "short.png").write_bytes(data[:33] + chunk + data[-12:])
    with pytest.raises(DecodeError, match="Not enough image data"):
        decode(tmp_path / "short.png")


def test_eight_bit_grey_is_returned_as_stored(tmp_path):
    for name in ("a.png", "a.tif", "a.bmp"):
        assert np.array_equal(decode(saved(tmp_path, Image.fromarray(ramp()), name)), ramp())


def test_equal_channels_come_out_as_the_channel(tmp_path):
    grey = Image.fromarray(ramp())
    for mode in ("RGB", "RGBA", "LA"):
        assert np.array_equal(decode(saved(tmp_path, grey.convert(mode))), ramp()), mode


def test_colour_becomes_luma(tmp_path):
    image = Image.new("RGB", (4, 4), (200, 100, 50))
    assert np.unique(decode(saved(tmp_path, image))) == round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)


def test_transparent_pixels_are_black(tmp_path):
    image = Image.new("LA", (4, 4), (200, 255))
    image.putpixel((0, 0), (200, 0))
    image.putpixel((1, 0), (200, 51))
    assert decode(saved(tmp_path, image))[0].tolist() == [0, 40, 200, 200]


def test_palette_is_looked_up(tmp_path):
    indices = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4), mode="P")
    indices.putpalette([channel for value in range(12) for channel in (250 - 20 * value,) * 3])
    expected = 250 - 20 * np.arange(12).reshape(3, 4)
    assert np.array_equal(decode(saved(tmp_path, indices)), expected)
    assert decode(saved(tmp_path, indices, transparency=0))[0, 0] == 0


def test_one_bit_images_are_black_and_white(tmp_path):
    assert np.array_equal(
        decode(saved(tmp_path, Image.fromarray(ramp() > 100))), np.where(ramp() > 100, 255, 0)
    )


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_that_repeat_eight_give_the_eight_back(tmp_path, name):
    assert np.array_equal(
        decode(saved(tmp_path, Image.fromarray(ramp().astype(np.uint16) * 257), name)), ramp()
    )


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_the_detectors_depth_inside_sixteen_bits_fills_the_range(tmp_path, bits):
    top = 2**bits - 1
    decoded = decode(saved(tmp_path, Image.fromarray(ramp(top=top, dtype=np.uint16))))
    assert decoded.min() == 0 and decoded.max() == 255
    assert np.array_equal(decoded, np.rint(ramp(top=top, dtype=np.uint16) * 255.0 / top))


def test_sixteen_bit_tiffs_whose_white_is_zero_are_inverted(tmp_path):
    values = ramp().astype(np.uint16) * 257
    path = saved(tmp_path, Image.fromarray(values), "a.tif", tiffinfo={262: 0})
    with Image.open(path) as written:
        assert written.tag_v2[262] == 0
    assert np.array_equal(decode(path), 255 - ramp())


def test_floating_point_tiff(tmp_path):
    unit = ramp().astype(np.float32) / 255
    assert np.array_equal(decode(saved(tmp_path, Image.fromarray(unit), "a.tif")), ramp())
    stretched = decode(saved(tmp_path, Image.fromarray(unit * 3000.5 - 1000), "b.tif"))
    assert stretched.min() == 0 and stretched.max() == 255
    assert np.abs(stretched.astype(int) - ramp()).max() <= 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(tmp_path, value):
    image = np.ones((8, 8), np.float32)
    image[2, 3] = value
    with pytest.raises(DecodeError, match="1 pixels that are NaN or infinite"):
        decode(saved(tmp_path, Image.fromarray(image), "a.tif"))


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° clockwise to view
    path = saved(tmp_path, Image.fromarray(ramp()), "a.jpg", exif=exif, quality=100)
    image, shape = decode_with_shape(path)
    assert image.shape == shape == (60, 40)
    assert np.abs(image.astype(int) - np.rot90(ramp(), -1)).max() <= 3


def test_colour_jpeg_gives_its_luma(tmp_path):
    path = saved(tmp_path, Image.fromarray(ramp()).convert("RGB"), "a.jpg", quality=95)
    with Image.open(path) as image:
        by_rgb = np.asarray(image.convert("L")).astype(int)
    assert np.abs(decode(path) - by_rgb).max() <= 1


def test_a_jpeg_reduced_while_decoded_differs_by_one_level_at_most(tmp_path):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (40, 50), dtype=np.uint8)).resize((1500, 1200))
    noisy = np.clip(np.asarray(coarse) + rng.normal(0, 8, (1200, 1500)), 0, 255).astype(np.uint8)
    path = saved(tmp_path, Image.fromarray(noisy), "a.jpg", quality=92)
    reduced, shape = decode_with_shape(path, minimum=4 * 64)
    assert shape == (1200, 1500) and min(reduced.shape) >= 4 * 64 and reduced.shape < shape
    difference = resize(reduced, 64).astype(int) - resize(decode(path), 64)
    assert np.abs(difference).max() <= 1


# --- What is refused ---


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(DecodeError, match=r"nowhere\.png does not exist"):
        decode(tmp_path / "nowhere.png")
    with pytest.raises(DecodeError, match="is a folder"):
        decode(tmp_path)


def test_a_file_of_zero_bytes(tmp_path):
    (tmp_path / "empty.png").touch()
    with pytest.raises(DecodeError, match=r"empty\.png is empty"):
        decode(tmp_path / "empty.png")


@pytest.mark.parametrize("content", [b"<html>404</html>" * 20, b"\0" * 400, b"PK\x03\x04" + b"x" * 400])
@pytest.mark.parametrize("name", ["image.png", "image.jpeg", "image.dcm"])
def test_a_file_that_is_no_image(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DecodeError, match=name):
        decode(tmp_path / name)


@pytest.mark.parametrize("name", ["image.png", "image.jpg", "image.tif"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_truncated_files_are_refused(tmp_path, name, share):
    noise = np.random.default_rng(0).integers(0, 256, (200, 300), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), name)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DecodeError, match=name):
        decode(path)


@pytest.mark.parametrize("name", ["image.png", "image.jpg"])
def test_a_file_without_its_last_bytes_is_refused(tmp_path, name):
    path = saved(tmp_path, Image.fromarray(ramp()), name)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DecodeError, match="truncated"):
        decode(path)


def test_a_flipped_bit_in_a_png_is_noticed(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (50, 50), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(noise))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    path.write_bytes(damaged)
    with pytest.raises(DecodeError, match="checksum"):
        decode(path)


def test_every_truncation_of_a_small_file_is_refused(tmp_path):
    for name in ("image.png", "image.jpg"):
        path = saved(tmp_path, Image.fromarray(ramp(8, 8)), name)
        whole = path.read_bytes()
        for length in range(0, len(whole), 1 if len(whole) < 400 else 7):
            path.write_bytes(whole[:length])
            with pytest.raises(DecodeError):
                decode(path)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    for side in (11_000, 60_000):
        header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        png = (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(b""))
            + chunk(b"IEND", b"")
        )
        (tmp_path / "bomb.png").write_bytes(png)
        with pytest.raises(DecodeError, match="limit is 50,000,000"):
            decode(tmp_path / "bomb.png")


def test_unsupported_modes_are_refused(tmp_path):
    with pytest.raises(DecodeError, match="CMYK"):
        decode(saved(tmp_path, Image.new("CMYK", (4, 4)), "a.tif"))


def test_files_with_several_pages_are_refused(tmp_path):
    page = Image.fromarray(ramp())
    with pytest.raises(DecodeError, match="several pages"):
        decode(saved(tmp_path, page, "a.tif", save_all=True, append_images=[page]))


def test_pillows_leniency_elsewhere_in_the_process_does_not_matter(tmp_path, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)
    for name in ("image.png", "image.jpg"):
        noise = np.random.default_rng(0).integers(0, 256, (60, 60), dtype=np.uint8)
        path = saved(tmp_path, Image.fromarray(noise), name)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(DecodeError):
            decode(path)


# --- Resizing ---


def test_letterbox_keeps_the_aspect_ratio_and_pads_with_black():
    resized = resize(np.full((100, 200), 255, np.uint8), 64)
    assert resized.shape == (64, 64)
    assert placed(100, 200, 64) == (16, 0, 32, 64)
    assert (resized[16:48] == 255).all() and (resized[:16] == 0).all() and (resized[48:] == 0).all()


def test_stretch_fills_the_square():
    assert (resize(np.full((100, 200), 255, np.uint8), 64, fit="stretch") == 255).all()


def test_a_square_image_of_the_size_is_unchanged():
    assert np.array_equal(resize(ramp(64, 64), 64), ramp(64, 64))


def test_reduction_is_antialiased():
    stripes = np.tile(np.array([0, 255], np.uint8), (256, 128))
    assert np.abs(resize(stripes, 32).astype(int) - 127)[:, 1:-1].max() <= 1


def test_reduction_agrees_with_torchs_antialiased_bilinear():
    torch = pytest.importorskip("torch")
    image = np.random.default_rng(0).integers(0, 256, (300, 300), dtype=np.uint8)
    reference = torch.nn.functional.interpolate(
        torch.from_numpy(image)[None, None].float(), (64, 64), mode="bilinear", antialias=True
    )
    assert np.abs(resize(image, 64) - reference[0, 0].numpy()).max() <= 1


def test_extreme_aspect_ratios_keep_a_pixel():
    assert resize(np.full((1, 5000), 255, np.uint8), 32).max() == 255


def test_wrong_sizes_and_fits_are_refused():
    with pytest.raises(ConfigError, match="no fit called 'crop'"):
        resize(ramp(), 32, fit="crop")
    with pytest.raises(ConfigError, match="image size is 0"):
        resize(ramp(), 0)


# --- Real files ---


@pytest.mark.real_data
def test_nih_rgba_files_equal_their_first_channel(data_root):
    modes = set()
    for path in sorted((data_root / "nih-subset" / "original-1024").glob("*.png")):
        with Image.open(path) as image:
            modes.add(image.mode)
            expected = np.asarray(image)
        expected = expected if expected.ndim == 2 else expected[..., 0]
        assert np.array_equal(decode(path), expected), path.name
    assert modes == {"L", "RGBA"}
