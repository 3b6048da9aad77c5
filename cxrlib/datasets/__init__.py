"""Every source of radiographs behind one function: ``load(name, …) -> Cohort``.

>>> from cxrlib.datasets import load
>>> cohort = load("phantom", limit=8, image_size=64)
>>> cohort.images.shape
(8, 64, 64)

A source is one module of this package that ends in a ``load`` of its own; :data:`SOURCES` names them all.
"""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cxrlib.cohort import Cohort
from cxrlib.datasets import _files, folder, kermany, lung_masks, medmnist, nih, nih_tables
from cxrlib.datasets.chexpert import CHEXPERT
from cxrlib.datasets.mimic import MIMIC
from cxrlib.datasets.openi import OPENI
from cxrlib.datasets.padchest import PADCHEST
from cxrlib.datasets.rsna import RSNA
from cxrlib.datasets.tabular import ABOUT, Published
from cxrlib.datasets.vindr import VINDR
from cxrlib.errors import ConfigError, CxrWarning, DataError
from cxrlib.io.decode import FORMATS

__all__ = [
    "PUBLISHED", "SOURCES", "Source", "describe", "fetch", "image_files", "load",
    "nih_tables", "verify",
]  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A dataset that :func:`load` knows.

    - ``title``, ``summary``, ``licence``, ``citation``: one line, a few sentences, the images' terms, what to
      cite.
    - ``needs``: ``nothing``, ``folder`` (images that the user has) or ``download``.
    - ``load``: the source's own function.
    - ``kaggle``: its name on Kaggle, for :func:`fetch`.
    """

    name: str
    title: str
    summary: str
    licence: str
    citation: str
    needs: str
    load: Callable[..., Cohort]
    kaggle: str | None = None


_FACTS = ("title", "summary", "licence", "citation", "needs", "kaggle")


def _load_phantom(**options: Any) -> Cohort:
    from cxrlib.phantom import (
        store as phantom_store,  # imported when asked for: rendering brings scipy with it
    )

    return phantom_store.load(**options)


#: Sources that are a published table and a folder; see :mod:`cxrlib.datasets.tabular`.
PUBLISHED: dict[str, Published] = {p.name: p for p in (RSNA, CHEXPERT, PADCHEST, OPENI, MIMIC, VINDR)}

_LOADERS: dict[str, Callable[..., Cohort]] = {
    "phantom": _load_phantom,
    "nih": nih.load,
    "kermany": kermany.load,
    "lung_masks": lung_masks.load,
    "folder": folder.load,
    **{name: partial(medmnist.load, name) for name in medmnist.NAMES},
    **{name: published.load for name, published in PUBLISHED.items()},
}

#: Every source by its name, as ``cxr data list`` shows them.
SOURCES: dict[str, Source] = {
    name: Source(name=name, load=_LOADERS[name], **{key: about[key] for key in _FACTS if key in about})
    for name, about in ABOUT.items()
}

_COMMON = ("image_size", "data_dir", "seed", "skip_bad", "cache_dir", "workers", "progress", "limit")


def load(
    name: str,
    *,
    image_size: int = 128,
    data_dir: str | Path | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    cache_dir: str | Path | None = None,
    workers: int | None = None,
    progress: bool | None = None,
    limit: int | None = None,
    **options: Any,
) -> Cohort:
    """Load a dataset as a :class:`~cxrlib.cohort.Cohort`.

    - ``name``: one of :data:`SOURCES`.
    - ``image_size``: pixels a side.
    - ``data_dir``: the folder with the dataset, for the sources that need one.
    - ``seed``: of the split, where none is published, and of the phantom.
    - ``skip_bad``: go on without files that cannot be read; ``cohort.info["skipped"]`` lists them.
    - ``cache_dir``: where decoded images are kept; None: :func:`cxrlib.io.cache.cache_root`.
    - ``workers``: decoding processes; None: one a processor.
    - ``progress``: show a progress bar; None: on a terminal or in a notebook.
    - ``limit``: load at most this many images, drawn by a hash (the phantom: rendered).
    - ``options``: the source's own, as :func:`describe` lists them; for example ``fit="stretch"``.
    - Raises ConfigError: there is no such source or option.
    - Raises DataError: the source's files cannot be used; see its own ``load``.
    """
    source = _source(name)
    _check_options(source, options)
    if not isinstance(image_size, (int, np.integer)) or image_size < 1:
        raise ConfigError(f"The image size is {image_size!r}.", remedy="Give whole pixels, 1 or more.")
    if limit is not None and limit < 1:
        raise ConfigError(f"The limit is {limit}.", remedy="Give the number of images wanted, 1 or more.")
    if name == "phantom":
        if limit is not None:
            options["n"] = min(limit, options.get("n", limit))
        options |= {"cache_dir": cache_dir, "workers": workers, "progress": progress}
        return source.load(image_size=image_size, seed=seed, **options)
    common = {"data_dir": data_dir, "image_size": image_size, "seed": seed, "limit": limit}
    if source.needs == "download":
        return source.load(**common, cache_dir=cache_dir, progress=progress)
    decoding = {"skip_bad": skip_bad, "workers": workers, "progress": progress, "cache_dir": cache_dir}
    return source.load(**common, **decoding, **options)


def describe(name: str) -> dict[str, object]:
    """What is known of a source: title, summary, licence, citation, needs, kaggle, and its own options."""
    source = _source(name)
    facts = {key: value for key in ("name", *_FACTS) if (value := getattr(source, key)) is not None}
    if source.needs == "download":
        facts["image_sizes"] = list(medmnist.sizes(name))
    if name in PUBLISHED:
        facts["findings"] = list(PUBLISHED[name].findings)
        facts["policies"] = {policy: list(ways) for policy, ways in PUBLISHED[name].choices.items()}
    return facts | {"options": _options(source)}


def fetch(
    name: str,
    data_dir: str | Path | None = None,
    *,
    image_size: int = 128,
    cache_dir: str | Path | None = None,
    progress: bool | None = None,
) -> Path:
    """Download a source's images; return what to pass as ``data_dir`` (MedMNIST: the file).

    MedMNIST comes from Zenodo, verified; NIH and Kermany from Kaggle through the optional ``kagglehub``.

    - Raises ConfigError: the source has nothing to download, or kagglehub is not installed.
    - Raises DataError: the download failed.
    """
    source = _source(name)
    if source.needs == "download":
        return medmnist.fetch(name, data_dir, image_size=image_size, cache_dir=cache_dir, progress=progress)
    if source.kaggle:
        return _files.from_kaggle(source.kaggle, data_dir)
    what = {
        "nothing": f"{name} is rendered, not downloaded.",
        "folder": f"There is no download for {name}.",
    }
    raise ConfigError(what[source.needs], remedy=f"Load it: load({name!r}) or cxr data show {name}.")


def verify(name: str, data_dir: str | Path | None = None, **options: Any) -> list[dict[str, object]]:
    """Check a source's files: counts, readability, checksums, duplicates.

    ``options``: ``workers``, ``progress``, ``image_size`` (MedMNIST), and those of ``load`` (folder). Returns
    checks, each with ``name``, ``ok`` (bool), ``found`` and ``expected``.
    """
    from cxrlib.datasets import checks

    _source(name)
    return checks.verify(name, data_dir, **options)


def image_files(paths: Iterable[str | Path]) -> list[Path]:
    """Files as they are, folders as the images in them and below, sorted by name.

    What is an image in a folder its ending or its content tells; a warning says what was left out, and why.
    Raises a DataError where something named is not there, or holds no image.
    """
    found: list[Path] = []
    left_out = Counter[str]()
    for path in map(Path, [paths] if isinstance(paths, (str, Path)) else paths):
        path = Path(_files.on_disk(str(path)))
        if path.is_dir():
            images, others = _files.images_below(path)
            found += images
            left_out += others
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{path} does not exist.", remedy="Name image files, or folders of them.")
    reasons = "; ".join(f"{count} ({reason})" for reason, count in left_out.most_common(10))
    if not found:
        raise DataError(
            f"No image is in what was named.{' Left out: ' * bool(reasons)}{reasons}",
            remedy=f"Name files or folders of {', '.join(FORMATS)} or DICOM.",
        )
    if reasons:
        message = f"{left_out.total()} files are no images that can be read and are left out: {reasons}."
        warnings.warn(message, CxrWarning, stacklevel=2)
    return found


def _source(name: str) -> Source:
    if name in SOURCES:
        return SOURCES[name]
    close = difflib.get_close_matches(str(name).lower(), SOURCES, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    raise ConfigError(
        f"There is no dataset {name!r}.", remedy=f"{hint}The datasets are {', '.join(SOURCES)}."
    )


def _options(source: Source) -> dict[str, object]:
    """The options that are the source's own, with their defaults."""
    functions: dict[str, Callable[..., object]] = {"folder": folder.files}
    if source.name == "phantom":
        from cxrlib.phantom import phantom

        functions["phantom"] = phantom.load
    parameters = inspect.signature(functions.get(source.name, source.load)).parameters.values()
    own = {
        p.name: None if p.default is p.empty else p.default
        for p in parameters
        if p.name not in (*_COMMON, "allow_missing") and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    if source.name == "folder":
        own |= dict.fromkeys(folder.ROLES)
    if source.needs == "folder":
        own["fit"] = "letterbox"
    choices = PUBLISHED[source.name].choices if source.name in PUBLISHED else {}
    return own | {name: ways[0] for name, ways in choices.items()}


def _check_options(source: Source, options: dict[str, object]) -> None:
    if source.name == "phantom":
        return  # it knows its knobs best
    known = _options(source)
    unknown = [option for option in options if option not in known]
    if unknown:
        close = difflib.get_close_matches(unknown[0], [*known, *_COMMON], n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        its_own = ", ".join(known) or "none"
        raise ConfigError(
            f"The dataset {source.name!r} has no option {', '.join(map(repr, unknown))}.",
            remedy=f"{hint}Its own options are: {its_own}; all have {', '.join(_COMMON)}.",
        )
