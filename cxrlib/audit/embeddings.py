"""Embeddings of a user's, in the place of pixel blocks, as what the audit calls the whole image.

A foundation model sees more than a few hundred block means do. Its embeddings, a row of numbers an image, are
read from a file and never made here; nothing in the file is executed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cxrlib.audit.scores import rows_by_name
from cxrlib.errors import ConfigError, DataError, MissingPackage

KINDS = (".npy", ".csv", ".parquet")


def read_embeddings(
    path: str | Path, image_ids: Sequence[str] | np.ndarray, listed: Sequence[str] | None = None
) -> np.ndarray:
    """The embeddings of images, float32 (N, D), in the order of ``image_ids``.

    - ``path``: ``.npy``: a row for each of ``listed``, in that order. ``.csv``, ``.parquet``: a column of
      names, ``image``, ``image_id``, ``file`` or ``path``, and every other one a number of the embedding;
      images that are not asked for are passed over.
    - ``listed``: all images that the labels' CSV lists, in its order; None where there is no such order.
    - Raises ConfigError, DataError: no such file or kind; another count than the CSV's; no numbers, or one
      that is not finite; an image without an embedding, or with two; all embeddings alike.
    - Raises MissingPackage: nothing that reads ``.parquet`` is installed.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in KINDS or not path.is_file():
        what = "There is no file" if not path.is_file() else "The embeddings are of no known kind:"
        raise ConfigError(f"{what} {path}.", remedy=f"Give a file that ends in {', '.join(KINDS)}.")
    if path.suffix.lower() == ".npy":
        values = _rows(path, [str(one) for one in image_ids], listed)
    else:
        values = _named(path, np.asarray(image_ids, dtype=str))
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise DataError(
            f"{path}: the embeddings of {int(bad.sum()):,} of {len(values):,} images hold NaN or infinity.",
            offenders=[str(one) for one in np.asarray(image_ids)[bad]],
            remedy="Make these again: a network fed an empty image or numbers of another size gives such.",
        )
    if len(values) > 1 and np.ptp(values, axis=0).max() == 0:
        raise DataError(f"{path}: all embeddings are alike.", remedy="Check what the network was fed.")
    return values


def _rows(path: Path, image_ids: list[str], listed: Sequence[str] | None) -> np.ndarray:
    if listed is None:
        raise ConfigError(
            f"{path} names no images, and this source lists them in no order of yours.",
            remedy="Give a .csv or .parquet with a column image.",
        )
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise DataError(
            f"{path} cannot be read: {error}", remedy="Write numbers: np.save(path, embeddings)."
        ) from None
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in "fiu":
        shape = getattr(values, "shape", None)
        raise DataError(
            f"{path} holds {getattr(values, 'dtype', type(values).__name__)} of the shape {shape}.",
            remedy="Give one row of numbers an image: (images, dimensions).",
        )
    if len(values) != len(listed):
        raise DataError(
            f"{path} has {len(values):,} rows, and the labels' CSV lists {len(listed):,} images.",
            remedy="Give a row for each line of the CSV, in its order, those that are left out too; or a "
            ".csv or .parquet with a column image.",
        )
    place = {str(name): row for row, name in enumerate(listed)}
    return values[[place[one] for one in image_ids]].astype(np.float32)


def _named(path: Path, image_ids: np.ndarray) -> np.ndarray:
    try:
        if path.suffix.lower() == ".csv":
            names = ("image", "image_id", "file", "path")
            table = pd.read_csv(path, dtype=dict.fromkeys(names, str))
        else:
            table = pd.read_parquet(path)
    except ImportError:
        raise MissingPackage(
            f"{path} needs a reader of Parquet: pip install pyarrow",
            remedy="Install it, or write the table with to_csv(…, index=False).",
        ) from None
    except Exception as error:  # the readers raise whatever a file makes them raise
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"{path} cannot be read: {said[0][:200]}",
            remedy="Give a table with a column image, and one for each number of the embedding.",
        ) from None
    rows, numbers = rows_by_name(table, image_ids, path, "embedding")
    table = table.iloc[rows][numbers]
    texts = [str(name) for name in table if not pd.api.types.is_numeric_dtype(table[name])]
    if texts:
        raise DataError(
            f"{path}: column {texts[0]!r} holds values that are no numbers.",
            remedy="Keep the column image and the embedding's numbers, one a column.",
        )
    return table.to_numpy(np.float32)
