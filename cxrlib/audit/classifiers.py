"""A classifier of the user's, whatever it was made with, as a function of images: uint8 (N, H, W) -> (N,).

==================================  ============================================================
given as                              run by
==================================  ============================================================
``model.onnx``                      onnxruntime
``model.pt2``                       ``torch.export``
``best.pt`` of ``cxr train``        cxrlib
another ``model.pt``                  TorchScript (``torch.jit``)
``xrv:densenet121-res224-all``      torchxrayvision, which fetches its weights the first time
``package.module:function``         Python: uint8 (N, H, W) -> (N,) scores
==================================  ============================================================
"""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrlib.errors import ConfigError, CxrError, DataError
from cxrlib.io.decode import resize

#: How a grey of 0 to 255 becomes what a network was trained on.
RANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "0-1": lambda grey: grey / 255,
    "0-255": lambda grey: grey,
    "-1-1": lambda grey: grey / 127.5 - 1,
    "xrv": lambda grey: (grey / 255 * 2 - 1) * 1024,
    "imagenet": lambda grey: grey / 255,  # less each channel's mean, see _batch
}
_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as torchvision's models expect
_PIXELS = 64 * 224 * 224  # of a batch
_TORCH = 'Install it: pip install "cxrlib[course]". An ONNX file needs no torch.'


@dataclass(frozen=True)
class Feed:
    """What a network is given and what is taken of its answer.

    - ``size``: pixels a side; None for what the file says, or else the images' own.
    - ``value_range``: one of :data:`RANGES`.
    - ``channels``: 1 or 3 (the grey three times); None for what the file says, or else 1.
    - ``output``: column of the answer that means ill; None for the only one, or the last of two.
    """

    size: int | None = None
    value_range: str = "0-1"
    channels: int | None = None
    output: int | None = None

    def __post_init__(self) -> None:
        if self.value_range not in RANGES:
            raise ConfigError(
                f"There is no range {self.value_range!r}.", remedy=f"Use one of {', '.join(RANGES)}."
            )
        if self.channels not in (None, 1, 3):
            raise ConfigError(f"{self.channels} channels make no sense.", remedy="Give 1 or 3.")


@dataclass(frozen=True)
class Scorer:
    """A classifier as a function: uint8 (N, H, W) -> float64 (N,).

    - ``run``: answers a batch; ``size``: pixels a side that it wants, None for any.
    """

    name: str
    run: Callable[[np.ndarray], Any]
    feed: Feed | None = None

    @property
    def size(self) -> int | None:
        return None if self.feed is None else self.feed.size

    def __call__(self, images: np.ndarray) -> np.ndarray:
        side = self.size or max(images.shape[1:])
        step = max(1, _PIXELS // side**2)
        parts = [self._score(np.array(images[s : s + step])) for s in range(0, len(images), step)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _score(self, batch: np.ndarray) -> np.ndarray:
        size, feed = self.size, self.feed
        if size and batch.shape[1:] != (size, size):
            batch = np.stack([resize(image, size, "stretch") for image in batch])
        try:
            answer = self.run(batch if feed is None else _batch(batch, feed))
        except CxrError:
            raise
        except Exception as error:
            raise DataError(
                f"{self.name} failed on images of {batch.shape[1]} × {batch.shape[2]} pixels: {_line(error)}",
                remedy="Check --model-size, --model-channels and --model-range.",
            ) from error
        return _column(self.name, np.asarray(answer, np.float64), len(batch), feed)


def load_classifier(spec: str, feed: Feed | None = None) -> Scorer:
    """The classifier that ``spec`` names, as the table above says.

    - Returns: A function of uint8 (N, H, W), bone bright, that gives float64 (N,): higher is more likely ill.
      It raises a DataError where the answer has another shape, or a NaN.
    - Raises ConfigError: no such file, module or model; a package that it needs is not installed; no such
      kind of file.
    """
    feed = feed or Feed()
    if spec.startswith("xrv:"):
        return Scorer(spec, *_xrv(spec.removeprefix("xrv:"), feed))
    path = Path(spec).expanduser()
    if not path.exists() and ":" in spec:
        return Scorer(spec, _function(spec))
    if not path.is_file():
        raise ConfigError(
            f"There is no file {spec}.",
            remedy="Give an ONNX, .pt2, TorchScript or cxrlib file, xrv:NAME, or package.module:function.",
        )
    kinds = {".onnx": _onnx, ".pt2": _exported, ".pt": _torch_file, ".pth": _torch_file, ".ts": _torch_file}
    if path.suffix.lower() not in kinds:
        raise ConfigError(
            f"{spec} is no kind of classifier that is known by its ending.",
            remedy=f"Give one that ends in {', '.join(kinds)}; torch.onnx.export makes one of a network.",
        )
    try:
        return Scorer(spec, *kinds[path.suffix.lower()](path, feed))
    except CxrError:
        raise
    except ImportError as error:
        raise ConfigError(
            f"{spec} needs the package {error.name}, which is not installed.", remedy=_TORCH
        ) from None
    except Exception as error:  # the runtimes raise whatever a file makes them raise
        raise ConfigError(
            f"{spec} cannot be read as a network: {_line(error)}",
            remedy="Check that it was exported whole, by the version of the library that is installed.",
        ) from error


def read_scores(path: str | Path, image_ids: np.ndarray) -> pd.DataFrame:
    """Scores of classifiers from a CSV, in the order of ``image_ids``: float64, a column a classifier.

    The first column called ``image``, ``image_id``, ``file`` or ``path`` names the image, by its id or by its
    file's name; every other column is a classifier.

    - Raises DataError: an image without a score, one with two, a score that is no number, or no column of
      names.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read: {_line(error)}", remedy="Give a CSV with a header."
        ) from None
    rows, classifiers = rows_by_name(table, image_ids, path, "score")
    table = table.iloc[rows]
    scores = {}
    for column in classifiers:
        numbers = pd.to_numeric(table[column], errors="coerce").to_numpy(float)
        if (bad := ~np.isfinite(numbers)).any():
            raise DataError(
                f"{path}: column {column!r} has {int(bad.sum()):,} values that are no finite numbers.",
                offenders=list(table[column][bad]), remedy="Give each image a number, or remove the column.",
            )  # fmt: skip
        scores[str(column)] = varied(numbers, f"{path}: column {column!r}")
    return pd.DataFrame(scores)


def rows_by_name(
    table: pd.DataFrame, image_ids: np.ndarray, path: str | Path, what: str
) -> tuple[np.ndarray, list[Any]]:
    """The row of each image in a table with a column of names, int (N,), and the other columns.

    Names are ids or the files' names. Raises a DataError where there is no such column, where an image is not
    there, or twice; ``what`` is what the other columns hold.
    """
    called = ("image", "image_id", "file", "path")
    key = next((c for c in table if str(c).strip().lower() in called), None)
    if key is None or len(table.columns) < 2:
        raise DataError(
            f"{path} has the columns {', '.join(map(str, table.columns[:20]))}.",
            remedy=f"Give a column image, and one of numbers for each {what}.",
        )
    wanted = pd.Series(image_ids, dtype=str)
    names = table[key].astype(str).str.strip()
    if not set(wanted) <= set(names):  # ids are paths here, and file names there, or the other way round
        wanted, names = (one.str.replace("\\", "/").str.rsplit("/", n=1).str[-1] for one in (wanted, names))
    twice = names[names.duplicated()].unique()
    if wanted.duplicated().any():
        raise DataError(
            f"{path} names images by their files alone, and several are called so.",
            offenders=list(wanted[wanted.duplicated()]),
            remedy="Name them with their folders, as the labels do.",
        )  # fmt: skip
    if len(twice):
        raise DataError(
            f"{path} names images twice.", offenders=list(twice), remedy="Give each image one line."
        )
    rows = pd.Series(np.arange(len(names)), index=names.to_numpy())
    missing = wanted[~wanted.isin(rows.index)]
    if len(missing):
        raise DataError(
            f"{path} has no {what} for {len(missing):,} of {len(wanted):,} images.", offenders=list(missing),
            remedy="Give one for every image that is audited, under the name that the labels' CSV uses.",
        )  # fmt: skip
    return rows[wanted.to_numpy()].to_numpy(), [c for c in table if c != key]


def varied(scores: np.ndarray, what: str) -> np.ndarray:
    """The scores, where they are not all alike; else a DataError that names ``what`` gave them."""
    if len(scores) > 1 and np.ptp(scores) == 0:
        raise DataError(
            f"{what} gives every image the score {scores[0]:g}.",
            remedy="Check size, range and channels (--model-size, --model-range, --model-channels).",
        )
    return scores


def _batch(images: np.ndarray, feed: Feed) -> np.ndarray:
    """float32, (N, C, H, W), in the network's range."""
    grey = RANGES[feed.value_range](images.astype(np.float32)).astype(np.float32)[:, None]
    channels = feed.channels or 1
    if feed.value_range == "imagenet":
        return np.concatenate(
            [(grey - m) / s for m, s in zip(_MEAN[:channels], _SPREAD[:channels], strict=True)], axis=1
        ).astype(np.float32)
    return np.repeat(grey, channels, axis=1)


def _column(spec: str, answer: np.ndarray, images: int, feed: Feed | None) -> np.ndarray:
    output = None if feed is None else feed.output
    wide = answer.reshape(images, -1) if answer.ndim and len(answer) == images and answer.size else None
    if wide is None or (wide.shape[1] > 2 and output is None) or (output or 0) >= wide.shape[1]:
        raise DataError(
            f"{spec} answers with the shape {answer.shape} for {images} images.",
            remedy="Give one score an image, or say which column means ill (--model-output).",
        )
    column = wide[:, -1 if output is None else output]
    if wide.shape[1] == 2 and output is None:
        column = wide[:, 1] - wide[:, 0] if (wide.sum(1) - 1).any() else wide[:, 1]  # log odds of two logits
    if not np.isfinite(column).all():
        raise DataError(
            f"{spec} gives {int((~np.isfinite(column)).sum())} of {images} images a score that is no number.",
            remedy="Check --model-range: a network fed numbers of another size may overflow.",
        )
    return column


def _onnx(path: Path, feed: Feed) -> tuple[Callable[[np.ndarray], Any], Feed]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = session.get_inputs()
    if len(given) != 1 or len(given[0].shape) != 4:
        raise ConfigError(
            f"{path} takes {len(given)} inputs of the shapes {[one.shape for one in given]}.",
            remedy="Give a network that takes one batch (N, C, H, W) of float32.",
        )
    name, (_, channels, height, _) = given[0].name, given[0].shape
    feed = replace(
        feed,
        size=feed.size or (height if isinstance(height, int) else None),
        channels=feed.channels or (channels if channels in (1, 3) else None),
    )
    return lambda batch: session.run(None, {name: batch})[0], feed


def _exported(path: Path, feed: Feed) -> tuple[Callable[[np.ndarray], Any], Feed]:
    import torch

    program: Any = torch.export.load(str(path))
    return _module(program.module()), feed


def _torch_file(path: Path, feed: Feed) -> tuple[Callable[[np.ndarray], Any], Feed | None]:
    import torch

    with zipfile.ZipFile(path) if zipfile.is_zipfile(path) else _no_zip(path) as archive:
        scripted = any(name.endswith("/constants.pkl") for name in archive.namelist())
    if scripted:
        script: Any = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        return _module(script.eval()), feed
    from cxrlib.training.inference import load_model, predict

    model, facts = load_model(path)
    size = feed.size or facts["cohort"]["image_size"]
    return lambda batch: predict(model, batch[:, 0].astype(np.uint8)), Feed(size, "0-255", 1)


def _no_zip(path: Path) -> zipfile.ZipFile:
    raise ConfigError(
        f"{path} is no TorchScript file and no checkpoint of cxrlib.",
        remedy="A file of weights alone has no network in it: export the network with torch.onnx.export.",
    )


def _xrv(name: str, feed: Feed) -> tuple[Callable[[np.ndarray], Any], Feed]:
    try:
        import torchxrayvision as xrv
    except ImportError:
        raise ConfigError("xrv: needs torchxrayvision, which is not installed.", remedy=_TORCH) from None
    try:
        model = xrv.models.get_model(name).eval()
    except Exception as error:
        raise ConfigError(
            f"torchxrayvision cannot give the network {name!r}: {_line(error)}",
            remedy="Its weights are fetched the first time: check the name and the network, or copy them to "
            "~/.torchxrayvision/models_data.",
        ) from error
    targets = list(getattr(model, "targets", None) or model.pathologies)
    output = feed.output if feed.output is not None else targets.index("Pneumonia")
    return _module(model), Feed(feed.size or 224, "xrv", 1, output)


def _module(module: Any) -> Callable[[np.ndarray], Any]:
    import torch

    def run(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(batch)).float().numpy()

    return run


def _function(spec: str) -> Callable[[np.ndarray], Any]:
    name, _, attribute = spec.partition(":")
    try:
        found = getattr(importlib.import_module(name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{spec} cannot be imported: {_line(error)}",
            remedy="Name it as package.module:function; PYTHONPATH=. finds modules of the current folder.",
        ) from None
    if not callable(found):
        raise ConfigError(f"{spec} is no function.", remedy="Name one that takes uint8 (N, H, W).")
    return found


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
