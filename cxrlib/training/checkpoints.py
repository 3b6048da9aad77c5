"""Checkpoints on disk: written whole or not at all, and read without executing anything in them."""

from __future__ import annotations

import io
import logging
import warnings
import zipfile
from pathlib import Path

import torch

from cxrlib.errors import CheckpointError, one_line
from cxrlib.io.cache import atomic_path

FORMAT = 1

log = logging.getLogger(__name__)


def save_checkpoint(path: str | Path, state: dict) -> None:
    """Write a nested dict of tensors, numbers, strings and lists, whole or not at all."""
    data = io.BytesIO()  # torch, writing itself, would call a full disk a RuntimeError
    torch.save({"format": FORMAT, **state}, data)
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(data.getvalue())  # getbuffer, where a disk is full, crashes Python 3.12.1


def load_checkpoint(path: str | Path) -> dict:
    """Read what :func:`save_checkpoint` wrote, onto the CPU, with ``weights_only=True``.

    Raises a CheckpointError where the file is missing, damaged, or none of ours.
    """
    state = _read(Path(path))
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is not a checkpoint of cxrlib's format {FORMAT}.",
            remedy="Give a last.pt or best.pt that `cxr train` wrote.",
        )
    return state


def drop_damaged(folder: Path) -> None:
    """Remove a stored training of which a checkpoint is damaged: a store holds what can be made again."""
    names = ("last.pt", "best.pt")
    try:
        for name in names:
            if (folder / name).exists():
                load_checkpoint(folder / name)
    except CheckpointError as error:
        log.warning("%s It is trained again.", error.message)
        for name in names:
            (folder / name).unlink(missing_ok=True)


def load_state_dict(path: Path) -> dict:
    """The weights in a checkpoint of ours, a plain ``state_dict`` file or a safetensors file."""
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{path} cannot be read: {error}", remedy="Check the path and the file."
            ) from error
    state = _read(path)
    state = state.get("model", state) if isinstance(state, dict) else None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise CheckpointError(f"{path} holds no weights by name.", remedy="Give a file of a state_dict.")
    return state


def _check_archive(path: Path) -> None:
    """Refuse an archive whose members are larger than the file, or not as they were written (CRC-32)."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    plain = all(member.compress_type == zipfile.ZIP_STORED for member in members)
    if not plain or sum(member.file_size for member in members) > path.stat().st_size:
        raise CheckpointError(
            f"{path} unpacks to more than its size.", remedy="Use a checkpoint that torch.save wrote."
        )
    with zipfile.ZipFile(path) as archive:
        if (name := archive.testzip()) is not None:
            raise ValueError(f"the checksum of {name} is wrong")


def _read(path: Path) -> object:
    if not path.is_file():
        raise CheckpointError(
            f"There is no checkpoint {path}.", remedy="Check the path; train first if need be."
        )
    try:
        _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # the unpickler raises nearly anything on damaged input
        raise CheckpointError(
            f"{path} is damaged or holds more than weights: {one_line(error)[:160]}",
            remedy="Use another checkpoint, such as best.pt beside last.pt, or train again.",
        ) from error
