"""What ``cxr data verify`` checks of each source."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pandas as pd

from cxrlib.datasets import folder, kermany, lung_masks, medmnist, nih, nih_tables
from cxrlib.datasets.tabular import Published
from cxrlib.errors import ConfigError, DataError
from cxrlib.io.cache import decode_files

Check = dict[str, object]


def verify(
    name: str,
    data_dir: str | Path | None = None,
    *,
    workers: int | None = None,
    progress: bool | None = None,
    **options: Any,
) -> list[Check]:
    """The checks of one source; see :func:`cxrlib.datasets.verify`."""
    from cxrlib.datasets import PUBLISHED

    if options and name not in ("folder", "pneumoniamnist", "chestmnist", *PUBLISHED):
        raise ConfigError(
            f"Verifying {name!r} takes no option {', '.join(map(repr, options))}.", remedy="Leave it out."
        )
    decoding: dict[str, Any] = {"workers": workers, "progress": progress}
    if name == "phantom":
        return _phantom()
    if name == "folder":
        return _folder(data_dir, decoding, options)
    if name in PUBLISHED:
        return _published(PUBLISHED[name], data_dir, decoding, options)
    of_folder = {"nih": _nih, "kermany": _kermany, "lung_masks": _lung_masks}
    if name in of_folder:
        return of_folder[name](data_dir, decoding)
    return _medmnist(name, data_dir, progress=progress, **options)


def identical_files(table: pd.DataFrame) -> pd.DataFrame:
    """The rows whose file has the same bytes as another's, with the checksum in column ``md5``."""
    # Only files of one length can be equal, so that few have to be read.
    sizes = table["path"].map(lambda path: Path(path).stat().st_size)
    candidates = table[sizes.duplicated(keep=False)]
    candidates = candidates.assign(md5=[medmnist.md5(Path(path)) for path in candidates["path"]])
    return candidates[candidates["md5"].duplicated(keep=False)].sort_values(["md5", "image_id"])


def _check(name: str, found: object, expected: object, ok: bool | None = None) -> Check:
    ok = bool(found == expected) if ok is None else ok
    return {"name": name, "ok": ok, "found": found, "expected": expected}


def _unreadable(paths: Sequence[str], decoding: dict[str, Any]) -> Check:
    try:
        with tempfile.TemporaryDirectory(prefix="cxrlib-") as scratch:
            skipped = decode_files(paths, 32, skip_bad=True, cache_dir=scratch, **decoding).skipped
            bad = [f"{path}: {reason}" for path, reason in skipped]
    except DataError as error:
        bad = error.offenders
    shown = [*bad[:10], *([f"… and {len(bad) - 10} more"] if len(bad) > 10 else [])]
    return _check("unreadable files", shown, [])


def _phantom() -> list[Check]:
    import numpy as np

    from cxrlib.phantom import phantom

    first, second = (phantom.load(n=4, image_size=64, seed=0) for _ in range(2))
    return [_check("renders the same twice", bool(np.array_equal(first.images, second.images)), True)]


def _nih(data_dir: str | Path | None, decoding: dict[str, Any]) -> list[Check]:
    table, info = nih.files(data_dir)
    assert data_dir is not None  # or there were no files
    published = nih_tables.PUBLISHED_COUNTS
    official = nih_tables.official_split(Path(data_dir).expanduser())
    expected = {"train_val": 86_524, "test": 25_596}
    lists = None if official is None else official.value_counts().to_dict()
    return [
        _check("images", len(table), published["images"]),
        _check("patients", int(table["patient_id"].nunique()), published["patients"]),
        _check("images with pneumonia", int(table["label"].sum()), published["pneumonia images"]),
        _check("images that are none of the dataset's", info["unknown_images"], 0),
        # Without the lists the split is by a hash, which is a choice, not a fault.
        _check("official lists", lists, expected, ok=lists in (None, expected)),
        _unreadable(table["path"].tolist(), decoding),
    ]


def _published(
    source: Published, data_dir: str | Path | None, decoding: dict[str, Any], options: dict[str, Any]
) -> list[Check]:
    everything = {name: ways[-1] for name, ways in source.choices.items() if name == "views"}
    table, info = source.files(data_dir, **everything | options)
    left_out = sum(cast(dict[str, int], info["left_out"]).values())
    return [
        _check(
            "images with a label, of the tables'", len(table), len(table) + cast(int, info["missing_images"])
        ),
        _check("patients", int(table["patient_id"].nunique()), source.counts.get("patients", "any"), ok=True),
        _check("rows that the policies leave out", left_out, "any", ok=True),
        _check("rows by published value and class", info["labels"], "any", ok=True),
        _unreadable(table["path"].tolist(), decoding),
    ]


def _kermany(data_dir: str | Path | None, decoding: dict[str, Any]) -> list[Check]:
    table = kermany.files(data_dir)
    counts = table["published_part"].value_counts()
    checks = [
        _check(f"images in {part}", int(counts.get(part, 0)), expected)
        for part, expected in kermany.PUBLISHED_COUNTS.items()
    ]
    parts = table.assign(
        part=table["published_part"].where(table["published_part"] == "test", "train and val")
    )
    shared = parts.groupby("patient_id")["part"].nunique()
    checks.append(_check("patients in training and test part", int((shared > 1).sum()), 0))
    identical = identical_files(parts).groupby("md5")
    across = identical.filter(lambda group: group["part"].nunique() > 1)
    checks.append(_check("identical files in training and test part", sorted(across["image_id"]), []))
    labels = identical.filter(lambda group: group["label"].nunique() > 1)
    checks.append(_check("identical files of both classes", sorted(labels["image_id"]), []))
    patients = identical.filter(lambda group: group["patient_id"].nunique() > 1)
    # They do no harm within one part; to know of them is enough.
    checks.append(
        _check("identical files under two patient ids", sorted(patients["image_id"]), "any", ok=True)
    )
    checks.append(_check("pairs or groups of identical files", identical.ngroups, "any", ok=True))
    return [*checks, _unreadable(table["path"].tolist(), decoding)]


def _lung_masks(data_dir: str | Path | None, decoding: dict[str, Any]) -> list[Check]:
    table = lung_masks.files(data_dir)
    counts = table["site"].value_counts()
    checks = [
        _check(f"images from {site}", int(counts.get(site, 0)), expected)
        for site, expected in lung_masks.PUBLISHED_COUNTS.items()
    ]
    return [*checks, _unreadable([*table["path"], *table["mask_path"]], decoding)]


def _folder(data_dir: str | Path | None, decoding: dict[str, Any], options: dict[str, Any]) -> list[Check]:
    table = folder.files(data_dir, **options)[0]
    missing = [path for path in table["path"] if not Path(path).is_file()]
    identical = identical_files(table[~table["path"].isin(missing)])
    across = identical.groupby("md5").filter(lambda group: group["split"].nunique() > 1)
    present = [path for path in table["path"] if path not in set(missing)]
    return [
        _check("files of the CSV that are not there", missing[:10], []),
        _check("identical files in two splits", sorted(across["image_id"]), []),
        _unreadable(present, decoding),
    ]


def _medmnist(
    name: str, data_dir: str | Path | None, *, image_size: int = 128, progress: bool | None = None
) -> list[Check]:
    archive = medmnist.find(name, data_dir, image_size=image_size)
    if archive is None:
        raise DataError(
            f"{name} at {image_size} pixels is not on this machine.",
            remedy=f"Fetch it: cxr data fetch {name}",
        )
    expected = medmnist.package_info(name)["MD5" + ("" if image_size == 28 else f"_{image_size}")]
    return [_check(f"MD5 of {archive.name}", medmnist.md5(archive, progress), expected)]
