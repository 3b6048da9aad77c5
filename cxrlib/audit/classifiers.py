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
import re
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from cxrlib.errors import CheckpointError, ConfigError, CxrError, DataError, one_line
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
_EXPORT = (
    'Export the network where its class is at hand: torch.onnx.export(model.eval(), example, "model.onnx", '
    'input_names=["x"], dynamic_axes={"x": {0: "n"}}, dynamo=False). Or give package.module:function, which '
    "takes uint8 (N, H, W) and returns (N,) scores."
)


@dataclass(frozen=True)
class Feed:
    """What a network is given and what is taken of its answer.

    - ``size``: pixels a side; None for what the file says, or else the images' own.
    - ``value_range``: one of :data:`RANGES`.
    - ``channels``: 1 or 3 (the grey three times); None for what the file says, or else 1.
    - ``output``: column of the answer that means ill, from 0; None for the only one, or the last of two.
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


@dataclass
class Scorer:
    """A classifier as a function: uint8 (N, H, W) -> float64 (N,).

    - ``run``: answers a batch; ``feed``: None for one that is given the greys as they are.
    - ``output``: as of :class:`Feed`.
    - ``taken``: of an answer of several columns: which ``column`` the score is, ``of`` how many, and ``how``:
      "probability" where two columns sum to 1, "softmax" of two logits, or "as it is". The first call
      settles it, by all its images; empty before, and for a single column.
    """

    name: str
    run: Callable[[np.ndarray], Any]
    feed: Feed | None = None
    output: int | None = None
    taken: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int | None:
        """Pixels a side that it wants, None for any."""
        return None if self.feed is None else self.feed.size

    def __call__(self, images: np.ndarray) -> np.ndarray:
        if not len(images):
            return np.zeros(0)
        side = self.size or max(images.shape[1:])
        step = max(1, _PIXELS // side**2)
        parts = [self._answer(np.array(images[s : s + step])) for s in range(0, len(images), step)]
        return self._column(np.concatenate(parts))

    def _answer(self, batch: np.ndarray) -> np.ndarray:
        """What it says of a batch: float64, a row an image."""
        size, feed = self.size, self.feed
        if size and batch.shape[1:] != (size, size):
            batch = np.stack([resize(image, size, "stretch") for image in batch])
        try:
            answer = np.asarray(self.run(batch if feed is None else _batch(batch, feed)), np.float64)
        except CxrError:
            raise
        except Exception as error:
            if feed is None:
                remedy = "It is given uint8 (N, H, W), and returns a number for each image."
            elif size is None:
                remedy = "Its file does not say what it wants: give --model-size, and --model-channels."
            else:
                remedy = "Check --model-size, --model-channels and --model-range."
            side = f"{batch.shape[1]} × {batch.shape[2]} pixels"
            raise DataError(
                f"{self.name} failed on images of {side}: {one_line(error)}",
                remedy=remedy,
            ) from error
        if not answer.ndim or len(answer) != len(batch) or not answer.size:
            raise DataError(
                f"{self.name} answers with the shape {answer.shape} for {len(batch)} images.",
                remedy="Give one score an image, or a row of them of which --model-output names one.",
            )
        return answer.reshape(len(batch), -1)

    def _column(self, answer: np.ndarray) -> np.ndarray:
        """The score in an answer (N, K), float64 (N,)."""
        columns, output = answer.shape[1], self.output
        if (columns > 2 and output is None) or not -columns <= (output or 0) < columns:
            asked = "" if output is None else f", and --model-output is {output}"
            raise DataError(
                f"{self.name} answers with the shape {answer.shape} for {len(answer)} images{asked}.",
                remedy=f"Say which column means ill: --model-output, from 0 to {columns - 1}.",
            )
        at = (columns - 1 if output is None else output) % columns
        if columns > 1 and not self.taken:
            self.taken = {"column": at, "of": columns, "how": self._how(answer)}
        column = answer[:, at]
        if self.taken.get("how") == "softmax":
            with np.errstate(invalid="ignore"):  # of two infinite ones
                column = expit(column - answer[:, 1 - at])
        if not np.isfinite(column).all():
            bad = int((~np.isfinite(column)).sum())
            raise DataError(
                f"{self.name} gives {bad} of {len(column)} images a score that is no number.",
                remedy="Check --model-range: a network fed numbers of another size may overflow.",
            )
        return column

    def _how(self, answer: np.ndarray) -> str:
        if answer.shape[1] > 2:
            return "as it is"
        if not (answer.min() >= 0 and answer.max() <= 1):
            return "softmax"
        if (abs(answer.sum(1) - 1) <= 1e-3).all():
            return "probability"
        if self.output is None:
            raise DataError(
                f"{self.name} answers with two columns of numbers from 0 to 1 that do not sum to 1.",
                remedy="Say which column means ill: --model-output 0 or --model-output 1.",
            )
        return "as it is"


def load_classifier(spec: str, feed: Feed | None = None) -> Scorer:
    """The classifier that ``spec`` names, as the table above says.

    - Returns: A function of uint8 (N, H, W), bone bright, that gives float64 (N,): higher is more likely ill.
      It raises a DataError where the answer has another shape, or a NaN.
    - Raises ConfigError: no such file, module or model; a package that it needs is not installed; no such
      kind of file.
    """
    feed = feed or Feed()
    if spec.startswith("xrv:"):
        _unheeded(feed, spec, "torchxrayvision's networks have greys and channels of their own", size=True)
        run, fed = _xrv(spec.removeprefix("xrv:"), feed)
        return Scorer(spec, run, fed, fed.output)
    path = Path(spec).expanduser()
    if not path.exists() and ":" in spec:
        _unheeded(feed, spec, "a function is given the images as they are, uint8 (N, H, W)")
        return Scorer(spec, _function(spec), output=feed.output)
    if not path.is_file():
        raise ConfigError(
            f"There is no file {spec}.",
            remedy="Give an ONNX, .pt2, TorchScript or cxrlib file, xrv:NAME, or package.module:function.",
        )
    kinds = {".onnx": _onnx, ".pt2": _exported, ".pt": _torch_file, ".pth": _torch_file, ".ts": _torch_file}
    if path.suffix.lower() not in kinds:
        raise ConfigError(
            f"{spec} is no kind of classifier that is known by its ending.",
            remedy=f"Give one that ends in {', '.join(kinds)}. {_EXPORT}",
        )
    try:
        return Scorer(spec, *kinds[path.suffix.lower()](path, feed), feed.output)
    except CxrError:
        raise
    except ImportError as error:
        raise ConfigError(
            f"{spec} needs the package {error.name}, which is not installed.", remedy=_TORCH
        ) from None
    except Exception as error:  # the runtimes raise whatever a file makes them raise
        raise ConfigError(
            f"{spec} cannot be read as a network: {one_line(error)}",
            remedy="Check that it was exported whole, by the version of the library that is installed.",
        ) from error


def _unheeded(feed: Feed, spec: str, why: str, *, size: bool = False) -> None:
    """Refuse settings that would change nothing; ``size``: that of pixels is heeded."""
    given = {
        "--model-size": feed.size is not None and not size,
        "--model-channels": feed.channels is not None,
        "--model-range": feed.value_range != Feed.value_range,
    }
    if names := [name for name, is_given in given.items() if is_given]:
        raise ConfigError(
            f"{', '.join(names)} would change nothing for {spec}: {why}.", remedy="Leave it out."
        )


def _batch(images: np.ndarray, feed: Feed) -> np.ndarray:
    """float32, (N, C, H, W), in the network's range."""
    grey = RANGES[feed.value_range](images.astype(np.float32)).astype(np.float32)[:, None]
    channels = feed.channels or 1
    if feed.value_range == "imagenet":
        return np.concatenate(
            [(grey - m) / s for m, s in zip(_MEAN[:channels], _SPREAD[:channels], strict=True)], axis=1
        ).astype(np.float32)
    return np.repeat(grey, channels, axis=1)


def _onnx(path: Path, feed: Feed) -> tuple[Callable[[np.ndarray], Any], Feed]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = session.get_inputs()
    name = given[0].name if given else ""
    return _shaped(
        path, [one.shape for one in given], lambda batch: session.run(None, {name: batch})[0], feed
    )


def _exported(path: Path, feed: Feed) -> tuple[Callable[[np.ndarray], Any], Feed]:
    import torch

    program: Any = torch.export.load(str(path))
    inputs = [one for one in program.graph.nodes if one.name in program.graph_signature.user_inputs]
    shapes = [[d if isinstance(d, int) else str(d) for d in one.meta["val"].shape] for one in inputs]
    return _shaped(path, shapes, _module(program.module()), feed)


def _shaped(
    path: Path, shapes: list[list[Any]], run: Callable[[np.ndarray], Any], feed: Feed
) -> tuple[Callable[[np.ndarray], Any], Feed]:
    """What a file runs and is fed, by the shapes of its inputs, in which an int is fixed."""
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise ConfigError(
            f"{path} takes {len(shapes)} inputs of the shapes {shapes}.",
            remedy="Give a network that takes one batch (N, C, H, W) of float32.",
        )
    images, channels, height, _ = shapes[0]
    feed = replace(
        feed,
        size=feed.size or (height if isinstance(height, int) else None),
        channels=feed.channels or (channels if channels in (1, 3) else None),
    )
    return (_so_many(run, images) if isinstance(images, int) else run), feed


def _so_many(run: Callable[[np.ndarray], Any], images: int) -> Callable[[np.ndarray], Any]:
    """``run`` on exactly so many images at a time: the last batch is filled up, and cut afterwards."""

    def batched(batch: np.ndarray) -> np.ndarray:
        filled = np.concatenate([batch, np.repeat(batch[-1:], -len(batch) % images, axis=0)])
        answers = [np.asarray(run(filled[s : s + images])) for s in range(0, len(filled), images)]
        # A network for one image may answer without an axis of images.
        rows = [one.reshape(1, -1) if images == 1 else one for one in answers]
        return np.concatenate(rows)[: len(batch)]

    return batched


def _torch_file(path: Path, feed: Feed) -> tuple[Callable[[np.ndarray], Any], Feed | None]:
    import torch

    with zipfile.ZipFile(path) if zipfile.is_zipfile(path) else _no_zip(path) as archive:
        scripted = any(name.endswith("/constants.pkl") for name in archive.namelist())
    if scripted:
        script: Any = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        return _module(script.eval()), feed
    from cxrlib.training.inference import load_model, predict

    try:
        model, facts = load_model(path)
    except CheckpointError as error:
        raise _no_network(path, error) from error
    size = feed.size or facts["cohort"]["image_size"]
    return lambda batch: predict(model, batch[:, 0].astype(np.uint8)), Feed(size, "0-255", 1)


def _no_network(path: Path, error: CheckpointError) -> CxrError:
    """What a file of torch.save holds instead of a checkpoint of ours, or the error itself."""
    from cxrlib.training.checkpoints import load_checkpoint, load_state_dict

    # torch's word for what a pickle would import, which weights_only refuses
    if name := re.search(r"GLOBAL (\S+)", str(error.__cause__)):
        return ConfigError(
            f"{path} holds pickled Python objects ({name[1]}), as torch.save(model) writes them. It is not "
            "opened, as that would run code from the file.",
            remedy=_EXPORT,
        )
    try:
        load_state_dict(path)
    except CheckpointError:
        return error
    with suppress(CheckpointError):
        load_checkpoint(path)
        return error  # one of ours, whose network cannot be made
    return ConfigError(f"{path} is a state dict: weights without the network.", remedy=_EXPORT)


def _no_zip(path: Path) -> zipfile.ZipFile:
    raise ConfigError(
        f"{path} is no TorchScript file and no checkpoint of cxrlib: weights alone are no network.",
        remedy=_EXPORT,
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
            f"torchxrayvision cannot give the network {name!r}: {one_line(error)}",
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
            f"{spec} cannot be imported: {one_line(error)}",
            remedy="Name it as package.module:function; PYTHONPATH=. finds modules of the current folder.",
        ) from None
    if not callable(found):
        raise ConfigError(f"{spec} is no function.", remedy="Name one that takes uint8 (N, H, W).")
    return found
