"""Lung masks of image files, and files cut by them, at their own size: behind ``cxr lungs apply``."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cxrlib.cohort import Cohort
from cxrlib.errors import ConfigError, DataError, DecodeError
from cxrlib.images import regions
from cxrlib.images.borders import reduced
from cxrlib.images.polarity import bone_is_bright
from cxrlib.io.cache import progress_bar
from cxrlib.io.decode import EXTENSIONS, decode, placed, resize
from cxrlib.io.storage import atomic_path
from cxrlib.lungs.masks import Predictor, lung_masks, predictor
from cxrlib.lungs.shipped import SIDE

WHAT = ("mask", "crop", "keep", "remove", "frame")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_LETTERBOX = 2 * SIDE
_BOX = ("top", "left", "bottom", "right")
#: Which margins a region may have: of the lungs' longer side (crop), of the image's (the others).
_MARGINS = {"crop": (0, 2), "keep": (0, 0.4), "remove": (0, 0.4), "frame": (0.01, 0.49)}


def apply_to_files(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    what: str = "mask",
    margin: float | None = None,
    weights: str | Path | None = None,
    skip_bad: bool = False,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Write a PNG for each file whose lungs are found, and ``out/lungs.csv`` for all.

    Below ``out`` are the folders that the files have below the folder that holds them all.

    - ``paths``: PNG, JPEG, TIFF, BMP or DICOM files.
    - ``what``: ``mask`` (0 and 255), ``crop``, ``keep``, ``remove`` or ``frame``; see
      :mod:`cxrlib.images.regions`.
    - ``margin``: of the region; None for the region's own.
    - ``skip_bad``: no error for files that cannot be read; they are in the table either way.
    - Returns: DataFrame: ``image``, ``file`` (what was written), ``plausible``, ``problem``, ``negative``
      (bone dark: the network saw it turned around, what is written keeps its greys), ``lung_area`` (share of
      the image), ``top``, ``left``, ``bottom``, ``right`` (the lungs' box in pixels of the file, the last two
      exclusive).
    - Raises DataError: files cannot be read, and ``skip_bad`` is False. The others have been done.
    - Raises ConfigError: a region that does not exist, a margin it cannot have, or an output that would
      overwrite an input.
    """
    if what not in WHAT:
        raise ConfigError(f"There is no region {what!r}.", remedy=f"Use one of {', '.join(WHAT)}.")
    low, high = _MARGINS.get(what, (0, 0))
    if margin is not None and not low <= margin <= high:
        raise ConfigError(
            f"The margin of {what!r} is {margin}.",
            remedy=f"Give a share of the image from {low} to {high}."
            if high
            else "Leave it out: a mask has none.",
        )
    out, files = Path(out), [Path(path) for path in paths]
    names = _names(files)
    taken = {path.absolute() for path in files} & {(out / name).absolute() for name in names}
    if taken:
        raise ConfigError(
            "Files would be overwritten by what is made from them.",
            offenders=sorted(taken),
            remedy="Give another folder with --out.",
        )
    predict = predictor(weights)
    rows, bad = [], []
    with progress_bar(len(files), "Finding lungs", progress) as bar:
        for path, name in zip(files, names, strict=True):
            try:
                row = _one(path, out / name, what, margin, predict)
            except DecodeError as error:
                row = {"plausible": False, "problem": error.message.removeprefix(str(path)).strip(" :")}
                bad.append(f"{path}: {row['problem']}")
            rows.append({"image": str(path), "file": name if row["plausible"] else "", **row})
            bar.update(1)
    columns = ["image", "file", "plausible", "problem", "negative", "lung_area", *_BOX]
    table = pd.DataFrame(rows, columns=columns)
    table[list(_BOX)] = table[list(_BOX)].astype("Int64")
    with atomic_path(out / "lungs.csv") as temporary:
        table.to_csv(temporary, index=False, errors="surrogateescape")
    if bad and not skip_bad:
        raise DataError(
            f"{len(bad)} of {len(files)} files cannot be read; the others are done, in {out}.",
            offenders=bad,
            remedy="Mend or remove them; with --skip-bad (skip_bad=True) they are only listed.",
        )
    return table


def _one(path: Path, target: Path, what: str, margin: float | None, predict: Predictor) -> dict[str, object]:
    image = decode(path)
    small = resize(image, _LETTERBOX)
    negative = bool(bone_is_bright(reduced(image)) < 0)
    mask, (problem,) = _in_file(predict((255 - small if negative else small)[None]), image.shape)
    if problem:
        return {"plausible": False, "problem": problem, "negative": negative, "lung_area": 0.0}
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as temporary:
        Image.fromarray(_region(image, mask, what, margin)).save(temporary)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return {
        "plausible": True,
        "problem": "",
        "negative": negative,
        "lung_area": round(float(mask.mean()), 4),
        **dict(zip(_BOX, (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1), strict=True)),
    }


def _in_file(probabilities: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, list[str]]:
    """The mask in the file's own pixels: the letterbox taken back."""
    longer = max(shape)
    masks, problems = lung_masks(probabilities, (longer, longer))
    top, left, height, width = placed(*shape, longer)
    return masks[0, top : top + height, left : left + width], problems


def _region(image: np.ndarray, mask: np.ndarray, what: str, margin: float | None) -> np.ndarray:
    if what == "mask":
        return 255 * mask
    if what == "crop":
        y, x, side = regions.lung_window(mask, 0.05 if margin is None else margin)
        return image[y : y + side, x : x + side]
    table = pd.DataFrame({"image_id": ["0"], "patient_id": ["0"], "label": [0], "split": ["test"]})
    one = Cohort(image[None], table, lung_masks=mask[None])
    functions: dict[str, Callable[..., Cohort]] = {
        "keep": regions.keep_lungs,
        "remove": regions.remove_lungs,
        "frame": regions.keep_frame,
    }
    function = functions[what]
    return (function(one) if margin is None else function(one, margin)).images[0]


def _names(paths: list[Path]) -> list[str]:
    """A file name each, none twice, in the folders that the files have below the one that holds them all.

    Files whose names differ in their endings or in case alone are numbered.
    """
    places = [Path(os.path.abspath(path)) for path in paths]
    places = [p.with_suffix("") if p.suffix.lower() in EXTENSIONS else p for p in places]  # 1.2.840 has none
    try:
        root = os.path.commonpath([place.parent for place in places]) if places else ""
        stems = [place.relative_to(root).as_posix() for place in places]
    except ValueError:  # on several drives
        stems = [f"{place.drive.strip(':')}/{place.relative_to(place.anchor).as_posix()}" for place in places]
    often = Counter(stem.casefold() for stem in stems)
    taken, names = set(often), []
    for stem in stems:
        name, number = stem, 0
        while often[stem.casefold()] > 1 and name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        # A spreadsheet would take a cell that begins so for a formula; it is the same file.
        names.append(f"{'./' * name.startswith(_FORMULA)}{name}.png")
    return names
