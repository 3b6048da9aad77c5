"""Lung masks of image files, and files cut by them, at their own size: behind ``cxr lungs apply``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cxrlib import regions
from cxrlib.cache import progress_bar
from cxrlib.cohort import Cohort
from cxrlib.decode import decode, placed, resize
from cxrlib.errors import ConfigError, DecodeError
from cxrlib.lung_network import SIDE
from cxrlib.lungs import lung_masks, predictor
from cxrlib.storage import atomic_path

WHAT = ("mask", "crop", "keep", "remove", "frame")
_LETTERBOX = 2 * SIDE


def apply_to_files(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    what: str = "mask",
    margin: float | None = None,
    weights: str | Path | None = None,
    segmenter: str = "cxrlib",
    skip_bad: bool = False,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Write ``out/<name>.png`` for each file whose lungs are found, and ``out/lungs.csv`` for all.

    Parameters
    ----------
    paths
        PNG, JPEG, TIFF, BMP or DICOM files.
    what
        ``mask`` (0 and 255), ``crop``, ``keep``, ``remove`` or ``frame``; see :mod:`cxrlib.regions`.
    margin
        Of the region; None for the region's own.
    skip_bad
        List files that cannot be read instead of stopping at the first.

    Returns
    -------
    DataFrame: ``image``, ``file`` (what was written), ``plausible``, ``problem``, ``lung_area`` (share of the
    image), ``top``, ``left``, ``bottom``, ``right`` (the lungs' box, in pixels of the file).

    Raises
    ------
    DecodeError
        A file cannot be read, and ``skip_bad`` is False. What was written before stays.
    ConfigError
        A region that does not exist, or an output that would overwrite an input.
    """
    if what not in WHAT:
        raise ConfigError(f"There is no region {what!r}.", remedy=f"Use one of {', '.join(WHAT)}.")
    out, paths = Path(out), [Path(path) for path in paths]
    names = _names(paths)
    taken = {path.absolute() for path in paths} & {(out / name).absolute() for name in names}
    if taken:
        raise ConfigError(
            "Files would be overwritten by what is made from them.",
            offenders=sorted(taken),
            remedy="Give another folder with --out.",
        )
    predict = predictor(segmenter, weights)
    rows = []
    with progress_bar(len(paths), "Finding lungs", progress) as bar:
        for path, name in zip(paths, names, strict=True):
            try:
                row = _one(path, out / name, what, margin, predict)
            except DecodeError as error:
                if not skip_bad:
                    raise
                row = {"plausible": False, "problem": error.message}
            rows.append({"image": str(path), "file": name if row["plausible"] else "", **row})
            bar.update(1)
    columns = ["image", "file", "plausible", "problem", "lung_area", "top", "left", "bottom", "right"]
    table = pd.DataFrame(rows, columns=columns)
    table[columns[5:]] = table[columns[5:]].astype("Int64")
    with atomic_path(out / "lungs.csv") as temporary:
        table.to_csv(temporary, index=False)
    return table


def _one(path: Path, target: Path, what: str, margin: float | None, predict) -> dict[str, object]:
    image = decode(path)
    probabilities = predict(resize(image, _LETTERBOX)[None])
    mask, (problem,) = _in_file(probabilities, image.shape)
    if problem:
        return {"plausible": False, "problem": problem, "lung_area": 0.0}
    with atomic_path(target) as temporary:
        Image.fromarray(_region(image, mask, what, margin)).save(temporary)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return {
        "plausible": True,
        "problem": "",
        "lung_area": round(float(mask.mean()), 4),
        "top": rows[0],
        "left": columns[0],
        "bottom": rows[-1] + 1,
        "right": columns[-1] + 1,
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
    function = {"keep": regions.keep_lungs, "remove": regions.remove_lungs, "frame": regions.keep_frame}[what]
    return (function(one) if margin is None else function(one, margin)).images[0]


def _names(paths: list[Path]) -> list[str]:
    """A file name each, none twice: files of one name in several folders are numbered."""
    often = Counter(path.stem for path in paths)
    seen: Counter[str] = Counter()
    names = []
    for path in paths:
        seen[path.stem] += 1
        number = f"-{seen[path.stem]}" if often[path.stem] > 1 else ""
        names.append(f"{path.stem}{number}.png")
    return names
