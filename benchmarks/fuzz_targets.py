"""What ``fuzz.py`` feeds with damaged input: seeds, mutations, and the functions that read them.

Every target is ``(seeds, mutate, read)``: real files' bytes, a way to damage them that knows the format, and
the package's reader, which is given a path.
"""

from __future__ import annotations

import io
import json
import os
import random
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
from PIL import Image

NUMBERS = (
    0,
    1,
    2,
    3,
    4,
    8,
    16,
    127,
    128,
    255,
    256,
    32_767,
    32_768,
    65_535,
    65_536,
    2**31 - 1,
    2**31,
    2**32 - 1,
)
ODD = (
    None, True, -1, 0, 1, 2**31, 2**63, 10**400, 1e308, float("nan"), float("inf"), "", "\0", "\ud800", "NaN",
    "a" * 5000, "../../etc/passwd", "<script>", "\x1b[31m", "\n", [], {}, [[]], {"": {}}, [1, "a"],
    "1" * 5000,
)  # fmt: skip
SIDE = 48


# --- damage ---


def damaged(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """One to four changes that know nothing of the format."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        size = max(len(out), 1)
        at = rng.randrange(size)
        kind = rng.randrange(8)
        if kind == 0:
            for _ in range(rng.choice((1, 2, 8, 64)) if out else 0):
                out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
        elif kind == 1:
            width = rng.choice((1, 2, 4))
            number = rng.choice(NUMBERS) % 256**width
            out[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))
        elif kind == 2:
            # headers are short and most of a file is pixels: half of the edits go to the first bytes
            at = rng.randrange(min(size, 256))
            out[at : at + 2] = rng.randbytes(2)
        elif kind == 3:
            del out[at:]
        elif kind == 4:
            del out[at : at + rng.choice((1, 2, 4, 100, 1000))]
        elif kind == 5:
            other = rng.choice(others)
            start = rng.randrange(max(len(other), 1))
            out[at:] = other[start:]
        elif kind == 6:
            part = out[at : at + rng.choice((1, 4, 16, 256))]
            out[at:at] = part * rng.choice((1, 2, 50))
        else:
            out[at:at] = rng.randbytes(rng.choice((1, 2, 4, 64)))
    return bytes(out[: 2**20])


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def damaged_png(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Chunks edited, moved, repeated or made up, with checksums that hold."""
    if rng.random() < 0.3:
        return damaged(rng, data, others)
    chunks, at = [], 8
    while at + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        chunks.append((kind, data[at + 8 : at + 8 + length]))
        at += 12 + length
    for _ in range(rng.choice((1, 1, 2, 3))):
        number = rng.randrange(len(chunks))
        kind, body = chunks[number]
        choice = rng.randrange(6)
        if choice == 0 and kind == b"IHDR":
            fields = list(struct.unpack(">IIBBBBB", body[:13]))
            field = rng.randrange(7)
            fields[field] = rng.choice(NUMBERS) % (2**32 if field < 2 else 256)
            chunks[number] = (kind, struct.pack(">IIBBBBB", *fields))
        elif choice == 1:
            chunks.insert(rng.randrange(len(chunks) + 1), (kind, body))
        elif choice == 2 and len(chunks) > 1:
            del chunks[number]
        elif choice == 3:
            made = rng.choice(
                (
                    b"tRNS",
                    b"PLTE",
                    b"zTXt",
                    b"iTXt",
                    b"eXIf",
                    b"acTL",
                    b"fcTL",
                    b"gAMA",
                    b"iCCP",
                    b"tEXt",
                    b"pHYs",
                )
            )
            text = (
                b"a\0\0" + zlib.compress(rng.randbytes(30))
                if rng.random() < 0.5
                else rng.randbytes(rng.randrange(300))
            )
            chunks.insert(rng.randrange(len(chunks) + 1), (made, text))
        elif choice == 4 and kind == b"IDAT":
            try:
                pixels = damaged(rng, zlib.decompress(body), [body])
            except zlib.error:
                continue
            chunks[number] = (kind, zlib.compress(pixels))
        else:
            chunks[number] = (kind, damaged(rng, body, [body]) if body else rng.randbytes(4))
    return data[:8] + b"".join(_chunk(kind, body) for kind, body in chunks)


def mended_png(data: bytes) -> bytes:
    """The same with checksums that hold."""
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        end = at + 8 + struct.unpack(">I", out[at : at + 4])[0]
        out[end : end + 4] = struct.pack(">I", zlib.crc32(out[at + 4 : end])) if end + 4 <= len(out) else b""
        at = end + 4
    return bytes(out)


def damaged_jpeg(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Segments edited near their markers, repeated or left out."""
    if rng.random() < 0.4:
        return damaged(rng, data, others)
    out = bytearray(data)
    marks = [i for i in range(len(out) - 1) if out[i] == 0xFF and out[i + 1] not in (0, 0xFF)]
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.choice(marks) if marks else 0
        choice = rng.randrange(4)
        if choice == 0:
            place = min(at + rng.randrange(1, 20), len(out) - 1)
            out[place] = rng.randrange(256)
        elif choice == 1:
            out[at + 1 : at + 2] = bytes([rng.randrange(0xC0, 0x100)])
        elif choice == 2:
            out[at:at] = out[at : at + rng.choice((4, 20, 200))]
        else:
            del out[at : at + rng.choice((2, 4, 20, 70))]
    return bytes(out)


def damaged_tiff(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Entries of the first directory given another tag, type, count or value."""
    if rng.random() < 0.3 or data[:2] not in (b"II", b"MM"):
        return damaged(rng, data, others)
    out, order = bytearray(data), "<" if data[:2] == b"II" else ">"
    first = struct.unpack(order + "I", out[4:8])[0]
    if first + 2 > len(out):
        return damaged(rng, data, others)
    count = struct.unpack(order + "H", out[first : first + 2])[0]
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = first + 2 + 12 * rng.randrange(max(count, 1))
        choice = rng.randrange(4)
        if choice == 0:
            out[at : at + 2] = struct.pack(
                order + "H",
                rng.choice(
                    (
                        254,
                        256,
                        257,
                        258,
                        259,
                        262,
                        273,
                        274,
                        277,
                        278,
                        279,
                        284,
                        317,
                        320,
                        322,
                        324,
                        325,
                        338,
                        339,
                        347,
                        34665,
                        700,
                    )
                ),
            )
        elif choice == 1:
            out[at + 2 : at + 4] = struct.pack(order + "H", rng.randrange(20))
        elif choice == 2:
            out[at + 4 : at + 8] = struct.pack(order + "I", rng.choice(NUMBERS))
        else:
            out[at + 8 : at + 12] = struct.pack(order + "I", rng.choice((*NUMBERS, rng.randrange(2**16))))
    return bytes(out)


def damaged_dicom(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Elements that describe the image given another type, length or value."""
    if rng.random() < 0.4:
        return damaged(rng, data, others)
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        group = rng.choice((b"\x28\x00", b"\x28\x00", b"\x28\x00", b"\x02\x00", b"\xe0\x7f", b"\x08\x00"))
        places = [found.start() for found in re.finditer(re.escape(group) + rb"..[A-Z]", out[128:2000], re.S)]
        if not places:
            return damaged(rng, bytes(out), others)
        at = 128 + rng.choice(places)
        choice = rng.randrange(5)
        if choice == 0:
            out[at + 4 : at + 6] = rng.choice(
                (b"US", b"SS", b"DS", b"IS", b"OB", b"OW", b"SQ", b"UN", b"LO", b"UI", b"FD", b"AT")
            )
        elif choice == 1:
            out[at + 6 : at + 8] = struct.pack("<H", rng.choice(NUMBERS) % 2**16)
        elif choice == 2:
            out[at + 8 : at + 10] = struct.pack("<H", rng.choice(NUMBERS) % 2**16)
        elif choice == 3:
            out[at + 2 : at + 4] = struct.pack(
                "<H",
                rng.choice(
                    (
                        2,
                        4,
                        6,
                        8,
                        0x10,
                        0x11,
                        0x34,
                        0x100,
                        0x101,
                        0x102,
                        0x103,
                        0x120,
                        0x1050,
                        0x1051,
                        0x1052,
                        0x1053,
                        0x1101,
                        0x1201,
                        0x3000,
                        0x3010,
                    )
                ),
            )
        else:
            length = struct.unpack("<H", out[at + 6 : at + 8])[0]
            end = min(at + 8 + min(length, 64), len(out))
            out[at + 8 : end] = bytes(rng.choice(b"0123456789.\\-e \0\xff") for _ in range(end - at - 8))
    return bytes(out)


def damaged_json(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Values replaced by others of any kind, keys renamed, parts left out or repeated."""
    if rng.random() < 0.3:
        return damaged(rng, data, others)
    try:
        value = changed(rng, json.loads(data))
        return json.dumps(value).encode()
    except (ValueError, RecursionError):
        return damaged(rng, data, others)


def changed(rng: random.Random, value):
    """A nested value with one to three of its parts changed."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        places: list[tuple] = []
        _walk(value, places)
        if not places:
            return rng.choice(ODD)
        holder, key = rng.choice(places)
        choice = rng.randrange(6)
        if choice == 0 and isinstance(holder, dict):
            odd = rng.choice([one for one in ODD if isinstance(one, str)])
            holder[odd] = holder.pop(key)
        elif choice == 1:
            del holder[key]
        elif choice == 2:
            holder[key] = [holder[key]] * rng.choice((1, 2, 100))
        elif choice == 3:
            other, which = rng.choice(places)
            try:
                holder[key] = json.loads(json.dumps(other[which], default=str))
            except (KeyError, IndexError, ValueError):
                holder[key] = None
        else:
            holder[key] = rng.choice(ODD)
    return value


def _walk(value, places: list[tuple], depth: int = 0) -> None:
    if depth > 12:
        return
    if isinstance(value, dict):
        for key in value:
            places.append((value, key))
            _walk(value[key], places, depth + 1)
    elif isinstance(value, list):
        for key in range(min(len(value), 20)):
            places.append((value, key))
            _walk(value[key], places, depth + 1)


def damaged_csv(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Cells, header names, separators and line ends replaced."""
    if rng.random() < 0.3:
        return damaged(rng, data, others)
    rows = [line.split(b",") for line in data.split(b"\n")]
    for _ in range(rng.choice((1, 1, 2, 4))):
        row = rows[0] if rng.random() < 0.3 else rng.choice(rows)
        cell = rng.randrange(len(row))
        choice = rng.randrange(6)
        if choice == 0:
            row[cell] = rng.choice(
                (
                    b"",
                    b"nan",
                    b"inf",
                    b"1e999",
                    b"=1+1",
                    b'"',
                    b'""',
                    b"\0",
                    b"\xff",
                    b" ",
                    b"-0",
                    b"true",
                    b"test",
                    b"../a.png",
                    b"/etc/passwd",
                    b"<b>",
                    b"\xe2\x80\xae",
                    b"label",
                    b"image",
                    b"split",
                    b"9" * 400,
                    b"a" * 70_000,
                )
            )
        elif choice == 1:
            row.insert(cell, rng.choice(row))
        elif choice == 2 and len(row) > 1:
            del row[cell]
        elif choice == 3:
            rows.insert(rng.randrange(len(rows)), list(rng.choice(rows)))
        elif choice == 4:
            row[cell] = rng.randbytes(rng.randrange(1, 12))
        else:
            rng.shuffle(row)
    separator = rng.choice((b",", b",", b",", b",", b";", b"\t"))
    return rng.choice((b"\n", b"\n", b"\r\n", b"\r")).join(separator.join(row) for row in rows)


def damaged_torch(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """The pickled part or the names of an archive changed, and the archive written anew around them."""
    if rng.random() < 0.4 or data[:2] != b"PK":
        return damaged_safetensors(rng, data, others)
    out = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
            for name in old.namelist():
                body = old.read(name)
                if name.endswith("data.pkl") or rng.random() < 0.05:
                    body = damaged(rng, body, [body])
                if rng.random() > 0.02:
                    new.writestr(name, body)
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, RuntimeError, NotImplementedError):
        return damaged(rng, data, others)
    return out.getvalue()


def damaged_safetensors(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """The header changed as JSON, with a length that holds."""
    if len(data) > 8 and data[8:9] == b"{" and rng.random() < 0.6:
        size = struct.unpack("<Q", data[:8])[0]
        header = damaged_json(rng, data[8 : 8 + size], [data])
        return struct.pack("<Q", len(header)) + header + data[8 + size :]
    return damaged(rng, data, others)


# --- seeds ---


def _saved(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _pixels(dtype=np.uint8) -> np.ndarray:
    values = np.linspace(0, np.iinfo(dtype).max, SIDE * (SIDE - 4)).reshape(SIDE, SIDE - 4)
    return np.rint(values).astype(dtype)


def _real(pattern: str, most: int = 6) -> list[Image.Image]:
    """Radiographs of the folder that CXRLIB_DATA names, at 96 pixels, in memory alone."""
    root = os.environ.get("CXRLIB_DATA")
    found = sorted(Path(root).glob(pattern))[:: max(1, 7)][:most] if root else []
    images = []
    for path in found:
        with Image.open(path) as image:
            image.thumbnail((96, 96))
            images.append(image.copy())
    return images


def png_seeds() -> list[bytes]:
    gray = Image.fromarray(_pixels())
    deep = Image.fromarray(_pixels(np.uint16))
    made = [
        gray,
        deep,
        gray.convert("1"),
        gray.convert("P"),
        gray.convert("LA"),
        gray.convert("RGBA"),
        gray.convert("RGB"),
    ]
    seeds = [_saved(image, "PNG") for image in (*made, *_real("nih-subset/images/*.png"))]
    return [*seeds, _saved(gray, "PNG", transparency=3, dpi=(90, 90))]


def jpeg_seeds() -> list[bytes]:
    gray = Image.fromarray(_pixels())
    exif = Image.Exif()
    exif[0x0112] = 6
    seeds = [_saved(image, "JPEG") for image in (gray, gray.convert("RGB"), gray.convert("CMYK"))]
    seeds += [_saved(image, "JPEG") for image in _real("kermany224/**/*.jpeg")]
    return [
        *seeds,
        _saved(gray, "JPEG", progressive=True),
        _saved(gray.convert("RGB"), "JPEG", exif=exif, progressive=True),
    ]


def tiff_seeds() -> list[bytes]:
    gray = Image.fromarray(_pixels())
    real = Image.fromarray((_pixels() / 255).astype(np.float32))
    whole = Image.fromarray(_pixels(np.int32))
    holed = (_pixels() / 255).astype(np.float32)
    holed[3, 3], holed[4, 4] = np.nan, np.inf
    made = [
        gray,
        gray.convert("1"),
        gray.convert("P"),
        gray.convert("RGB"),
        real,
        whole,
        Image.fromarray(_pixels(np.uint16)),
    ]
    seeds = [_saved(image, "TIFF") for image in (*made, Image.fromarray(holed))]
    seeds += [
        _saved(gray, "TIFF", compression=how) for how in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")
    ]
    seeds += [_saved(gray.convert("1"), "TIFF", compression=how) for how in ("group3", "group4")]
    seeds += [_saved(image.convert("L"), "TIFF") for image in _real("lung-masks/images/*", 3)]
    return [*seeds, _saved(gray, "TIFF", save_all=True, append_images=[gray])]


def dicom_seeds() -> list[bytes]:
    from pydicom import uid

    eight, deep = _pixels(), _pixels(np.uint16) // 16
    window = {"WindowCenter": 1800, "WindowWidth": 900, "RescaleSlope": 2, "RescaleIntercept": -100}
    seeds = [
        dicom(eight),
        dicom(deep, bits=12, **window),
        dicom(deep, bits=12, WindowCenter=[1, 2], WindowWidth=[3, 4], VOILUTFunction="SIGMOID"),
        dicom((deep.astype(np.int32) - 2000).astype(np.int16), PixelPaddingValue=-2000),
        dicom(eight, PhotometricInterpretation="MONOCHROME1"),
        dicom(np.repeat(eight[..., None], 3, 2)),
        dicom(eight, syntax=uid.ImplicitVRLittleEndian),
        dicom(eight, syntax=uid.ExplicitVRBigEndian),
        dicom(eight, syntax=uid.DeflatedExplicitVRLittleEndian),
        dicom(eight, encapsulate=uid.RLELossless),
        dicom(eight, encapsulate=uid.JPEG2000Lossless),
        dicom(eight, NumberOfFrames=2, PixelData=eight.tobytes() * 2),
    ]
    seeds += [dicom(np.asarray(image.convert("L"))) for image in _real("nih-subset/images/*.png", 2)]
    return [*seeds, dicom(eight)[128 + 4 :]]


def dicom(pixels: np.ndarray, *, syntax=None, bits=None, encapsulate=None, **elements) -> bytes:
    """A file of one frame."""
    from pydicom import uid
    from pydicom.dataset import FileDataset, FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax or uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    little = syntax != uid.ExplicitVRBigEndian
    made = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128, is_little_endian=little)
    made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3.4"
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    made.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        made.PlanarConfiguration = 0
    made.BitsAllocated = pixels.dtype.itemsize * 8
    made.BitsStored = bits or made.BitsAllocated
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
    order = "<" if little else ">"
    made.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    made["PixelData"].VR = "OB" if made.BitsAllocated == 8 else "OW"
    for name, value in elements.items():
        setattr(made, name, value)
    if encapsulate is not None:
        made.compress(encapsulate)
    stream = io.BytesIO()
    made.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def label_seeds() -> list[bytes]:
    rows = [
        f"a{i}.png,{i % 2},p{i // 2},{('train', 'val', 'test')[i // 2 % 3]},{20 + i},{'MF'[i % 2]},w{i % 3}"
        for i in range(8)
    ]
    whole = "\n".join(["image,label,patient_id,split,age,sex,ward", *rows]) + "\n"
    words = whole.replace(",1,", ",Pneumonia,").replace(",0,", ",Normal,")
    few = "\n".join(["image,label", *(f"a{i}.png,{i % 2}" for i in range(8))])
    return [text.encode() for text in (whole, words, few, "\ufeff" + whole, whole.replace("\n", "\r\n"))]


def record_seeds() -> list[bytes]:
    root = Path(__file__).resolve().parent.parent
    files = [*sorted(root.glob("figures/*/*/*.json"))[::9], *sorted(root.glob("benchmarks/*.json"))]
    return [text for path in files if len(text := path.read_bytes()) < 60_000][:24]


def audit_seeds() -> list[bytes]:
    """``audit.json`` of two findings, as :func:`cxrlib.audit.page.content` writes it."""
    from cxrlib.audit.page import content
    from cxrlib.audit.probes import Finding
    from cxrlib.audit.rules import PROBES, column_probe
    from cxrlib.audit.run import Audit
    from cxrlib.evaluation.metrics import Estimate

    auc = Estimate(0.8, 0.7, 0.9, 40)
    levels = {"ward": [{"level": "<b>", "images": 20, "share_ill": 0.5}]}
    findings = (
        Finding(column_probe("ward"), "severe", auc, 0.001, 0.01, 0.5, detail={"levels": levels}),
        Finding(
            PROBES["duplicates"], "note", images=3, detail={"pairs": 2, "exact": 1, "examples": [["a", "b"]]}
        ),
    )
    facts = {"name": "folder", "images": 40, "patients": 20, "ill": 20, "image_size": 32, "skipped": []}
    facts |= {"splits": {}, "lungs_found": 1.0, "content_hash": "0"}
    audit = Audit(findings, facts, ("limit",), {"seed": 0})
    return [json.dumps(content(audit, command="cxr audit")).encode()]


def _trained(folder: Path):
    """A cohort of twelve images, and the checkpoint of a training on it."""
    import pandas as pd

    from cxrlib.cohort import Cohort
    from cxrlib.training.callbacks import Checkpoint
    from cxrlib.training.trainer import Trainer

    rng = np.random.default_rng(0)
    ids = [f"i{i}" for i in range(12)]
    split = ["train"] * 8 + ["val"] * 4
    table = pd.DataFrame({"image_id": ids, "patient_id": ids, "label": [0, 1] * 6, "split": split})
    cohort = Cohort(rng.integers(0, 255, (12, SIDE, SIDE), np.uint8), table, name="c")
    Trainer(_config(), [Checkpoint()], folder).fit(cohort)
    return cohort


def _config():
    from cxrlib.training.config import TrainConfig

    return TrainConfig(model="lenet", width=2, epochs=1, batch_size=8, train_sample=8, accelerator="cpu")


def checkpoint_seeds(folder: Path) -> list[bytes]:
    import torch
    from safetensors.torch import save

    _trained(folder)
    state = {"a.weight": torch.ones(3, 2), "a.bias": torch.zeros(2)}
    stream = io.BytesIO()
    torch.save(state, stream)
    return [
        (folder / "last.pt").read_bytes(),
        (folder / "best.pt").read_bytes(),
        stream.getvalue(),
        save(state),
    ]


def config_seeds() -> list[bytes]:
    from dataclasses import asdict

    from cxrlib.training.augment import Augment
    from cxrlib.training.config import TrainConfig

    board = {
        "row": [{"label": "a", "measure": "AUC", "notebook": "03_training", "key": "a.b", "format": ".3f"}]
    }
    words = ["seed=0,1", "dataset=phantom,kermany", 'x="a b"', "y=1.5,null", "z={}"]
    cell = {
        "cell_type": "code",
        "source": ["a = 1\n", "b = 2"],
        "metadata": {"tags": ["parameters"]},
        "outputs": [],
    }
    book = {"cells": [cell], "metadata": {"cxr": {"needs": []}}, "nbformat": 4, "nbformat_minor": 5}
    whole = {
        "config": asdict(TrainConfig(augment=Augment())),
        "board": board,
        "words": words,
        "notebook": book,
    }
    return [json.dumps(whole).encode()]


def cache_seeds() -> list[bytes]:
    """What audits and caches keep: plain arrays."""
    kept, state, array = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.savez(kept, numbers=[0.8, 0.7, 0.9, 40, 0.01], scores=np.arange(40.0))
    np.savez(state, state=np.ones(4, np.uint8), shapes=np.ones((4, 2), np.int32),
             rows=np.array([1]), reasons=np.array(["bad"]))  # fmt: skip
    np.save(array, np.zeros((4, 8, 8), np.uint8))
    return [stream.getvalue() for stream in (kept, state, array)]


# --- readers ---


def read_image(path: Path) -> None:
    """Decoding in full and reduced, the resize, and the header as an audit reads it."""
    from cxrlib.audit.files import file_facts
    from cxrlib.io.decode import decode, decode_with_shape, resize

    file_facts([str(path)], progress=False)
    image = decode(path)
    assert image.dtype == np.uint8 and image.ndim == 2
    assert resize(image, SIDE).shape == (SIDE, SIDE)
    decode_with_shape(path, minimum=16)


def read_labels(path: Path) -> None:
    """The table of a folder, with what an audit asks of its columns."""
    from cxrlib.audit.tables import asked_columns, column_features, levels_by_label
    from cxrlib.cli.audit_inputs import header_and_images
    from cxrlib.cohort import check_table
    from cxrlib.datasets import folder

    data = path.read_bytes()
    options = {"positive": "Pneumonia"} if b"Pneumonia" in data else {}
    if b"ward" in data[:60] and len(data) % 2:
        options |= {"site_column": "ward", "age_column": "age"}
    header_and_images(path.parent, path, "image")
    table, _ = folder.files(path.parent, labels=path, allow_missing=True, **options)
    check_table(table)
    columns, _ = asked_columns(table)
    column_features(table, columns)
    for column in columns:
        levels_by_label(table[column], table["label"].to_numpy())


def read_numbers(path: Path) -> None:
    """A record, as notebooks, comparisons and the site show it."""
    from cxrlib.evaluation.results import read_record
    from cxrlib.report.evidence.show import folded
    from cxrlib.report.site.build import shown
    from cxrlib.report.site.comparison import compare

    record = read_record(path)
    folded(record), str(record.estimate), record.image_path
    keyed = {("d", record.name, key): estimate for key, estimate in record.numbers.items()}
    compare(keyed, {key: estimate for key, estimate in list(keyed.items())[::2]}, "old").as_json()
    for estimate in record.numbers.values():
        shown(estimate)


class Checkpoints:
    """A network to predict with, weights alone, and a training to go on with."""

    def __init__(self, folder: Path):
        self.folder = folder / "run"
        self.cohort = _trained(self.folder)

    def __call__(self, path: Path) -> None:
        from cxrlib.training.checkpoints import load_state_dict
        from cxrlib.training.inference import load_model, predict
        from cxrlib.training.trainer import Trainer

        if path.read_bytes()[8:9] == b"{":
            path = path.replace(path.with_suffix(".safetensors"))
            load_state_dict(path)
            return
        if path.stat().st_size % 3 == 0:
            last = self.folder / path.name / "last.pt"
            last.parent.mkdir(exist_ok=True)
            last.write_bytes(path.read_bytes())
            trainer = Trainer(_config(), [], last.parent)
            trainer.fit(self.cohort, resume=True)
            return
        load_state_dict(path)
        model, _ = load_model(path)
        predict(model, self.cohort.images[:2])


def read_config(path: Path) -> None:
    """The settings that come from outside: of checkpoints, options, grids, the scoreboard and notebooks."""
    from cxrlib.cli.console import typed
    from cxrlib.cli.report import axes_of
    from cxrlib.errors import CxrError
    from cxrlib.report.batch import find_notebooks
    from cxrlib.training.config import TrainConfig

    try:
        given = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        given = path.read_bytes().decode("latin-1")
        typed(given)
        given = {"words": given.splitlines(), "notebook": given}
    if not isinstance(given, dict):
        given = {"config": given, "words": [str(given)], "notebook": given}
    told = []
    plain = {field.name for field in fields(TrainConfig)} - {"augment"}
    if isinstance(given.get("config"), dict):
        told.append(lambda: TrainConfig(**{k: v for k, v in given["config"].items() if k in plain}))
    if isinstance(given.get("words"), list):
        told.append(lambda: axes_of([str(word) for word in given["words"]]))
    folder = path.parent / f"{path.name}.d"
    folder.mkdir(exist_ok=True)
    book = given.get("notebook")
    (folder / "01_a.ipynb").write_text(
        book if isinstance(book, str) else json.dumps(book), "utf-8", "replace"
    )
    told.append(lambda: find_notebooks(folder))
    errors = []
    for one in told:
        try:
            one()
        except CxrError as error:
            errors.append(error)
    if errors:
        raise type(errors[0])(f"{path}: {errors[0].message}")


def read_cache(path: Path) -> None:
    """A damaged file of a cache is made anew, or named."""
    from cxrlib.audit.asked import read_held
    from cxrlib.io.cache import _resumed, _served

    read_held(path)
    partial = path.parent / f"{path.name}.d"
    partial.mkdir(exist_ok=True)
    data = path.read_bytes()
    (partial / "state.npz").write_bytes(data)
    _resumed(partial, 4)
    for name in ("images", "shapes"):
        (partial / f"{name}.npy").write_bytes(data)
    np.save(partial / "kept.npy", np.ones(4, bool))
    try:
        _served(partial, ["a"] * 4, False, None)
    except Exception as error:
        from cxrlib.errors import CacheError

        if not isinstance(error, CacheError):
            raise
        raise CacheError(error.message.replace(str(partial), str(path))) from error


def target(name: str, folder: Path) -> tuple[list[bytes], Callable, Callable, str]:
    """Seeds, how they are damaged, what reads them, and the files' ending."""
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name in ("png", "jpeg", "tiff", "dicom"):
            ending = {"png": ".png", "jpeg": ".jpg", "tiff": ".tif", "dicom": ".dcm"}[name]
            seeds = {"png": png_seeds, "jpeg": jpeg_seeds, "tiff": tiff_seeds, "dicom": dicom_seeds}[name]()
            damage = {"png": damaged_png, "jpeg": damaged_jpeg, "tiff": damaged_tiff, "dicom": damaged_dicom}[
                name
            ]
            return seeds, damage, read_image, ending
        if name == "labels":
            for number in range(8):
                (folder / f"a{number}.png").write_bytes(b"x")
            return label_seeds(), damaged_csv, read_labels, ".csv"
        if name == "checkpoint":
            return checkpoint_seeds(folder / "seed"), damaged_torch, Checkpoints(folder), ".pt"
        if name in ("audit", "record"):
            seeds = audit_seeds() if name == "audit" else record_seeds()
            return seeds, damaged_json, read_numbers, ".json"
        if name == "config":
            return config_seeds(), damaged_json, read_config, ".json"
        return cache_seeds(), damaged, read_cache, ".npz"
