"""Folders with some of the radiographs at hand."""

from collections.abc import Iterable
from pathlib import Path


def links(target: Path, root: Path, paths: Iterable[Path]) -> None:
    """Links in ``target`` to files under ``root``, by the same relative names."""
    for path in paths:
        link = target / path.relative_to(root)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
