"""Public data sets: a table and a folder as published, and a stated policy that turns a finding into a label.

Each source is one :class:`Published` in a module of its own, which reads its publisher's tables into a row an
image. A finding's column holds the share of readers who see it (1 and 0 where there is one reader), −1 where
the source calls itself uncertain, and NaN where it says nothing.
"""

from __future__ import annotations

import os
import re
import tomllib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrlib.cohort import Cohort, split_by_patient
from cxrlib.datasets._files import cohort_from_files, existing_folder
from cxrlib.errors import ConfigError, CxrWarning, DataError

FRONTAL = ("PA", "AP", "AP supine")
_DRAWN_SHARE = 0.1
#: ``data/sources.toml``: what is known of every source, by its name.
ABOUT: dict[str, dict[str, Any]] = tomllib.loads(
    (Path(__file__).parent / "data" / "sources.toml").read_text(encoding="utf-8")
)


@dataclass(frozen=True)
class Published:
    """A public data set as its publishers give it.

    - ``name``: its entry in ``data/sources.toml``.
    - ``read``: folder of the data set, or None for what ships with torchxrayvision -> a row an image:
      ``image_id``, ``patient_id`` (absent where unpublished), ``file`` (relative path), findings, and what
      else is known.
    """

    name: str
    read: Callable[[Path | None], pd.DataFrame]

    @property
    def counts(self) -> Mapping[str, int]:
        """Published numbers of ``images`` and ``patients``."""
        return ABOUT[self.name]["counts"]

    @property
    def findings(self) -> tuple[str, ...]:
        """The columns that can become the label, the default first."""
        return tuple(self._labels["findings"])

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """Policy -> its values, the default first: ``uncertain``, ``blank``, ``readers``, ``views``."""
        return {name: tuple(ways) for name, ways in self._labels.get("choices", {}).items()}

    @property
    def _labels(self) -> dict[str, Any]:
        return ABOUT[ABOUT[self.name].get("labels_of", self.name)]

    @property
    def _folders(self) -> list[str]:
        """Where the files' paths may begin below the folder that the user names."""
        return ABOUT[self.name]["folders"]

    def table(
        self, root: Path | None = None, *, finding: str | None = None, **policy: str
    ) -> tuple[pd.DataFrame, dict[str, object]]:
        """The rows with a label, and how they came by it. No image is needed.

        - Returns: The columns of ``read`` with ``label`` (int, 0 or 1); and a dictionary with ``finding``,
          ``policy``, ``labels`` (published value -> class -> rows) and ``left_out`` (reason -> rows).
        - Raises ConfigError: there is no such finding, policy or value of a policy.
        - Raises DataError: a table is missing or is not as published.
        """
        chosen = self._chosen(policy)
        raw = self.read(root)
        finding = self.findings[0] if finding is None else finding
        known = [name for name in self.findings if name in raw and raw[name].notna().any()]
        if finding not in known:
            raise ConfigError(
                f"The tables of {self.name!r} at hand say nothing of {finding!r}.",
                remedy=f"Choose as finding one of {', '.join(known)}.",
            )
        label = decide(raw[finding], **{name: way for name, way in chosen.items() if name != "views"})
        seen = raw["view"].isin(FRONTAL) if chosen.get("views") == "frontal" else pd.Series(True, raw.index)
        classes = label.map({0.0: "0", 1.0: "1"}).fillna("left out")
        became = pd.crosstab(raw[finding].round(3).astype(object).fillna("blank").astype(str), classes)
        info: dict[str, object] = {
            "finding": finding,
            "policy": chosen,
            "labels": {value: {k: int(n) for k, n in row.items() if n} for value, row in became.iterrows()},
            "left_out": {"no label": int(label.isna().sum()), "view": int((~seen & label.notna()).sum())},
        }
        keep = seen & label.notna()
        table = raw[keep].assign(label=label[keep].astype(np.int64))
        if "patient_id" not in table:
            table["patient_id"] = table["image_id"]
        return table.reset_index(drop=True), info

    def files(self, data_dir: str | Path | None, **asked: Any) -> tuple[pd.DataFrame, dict[str, object]]:
        """The rows of :meth:`table` whose image the folder holds, with ``path``; and how many are missing."""
        root = existing_folder(data_dir, self.name, self._wanted())
        table, info = self.table(root, **asked)
        names = table["file"].map(os.path.basename)
        layouts = [(table["file"], folder) for folder in self._folders]
        if names.is_unique:
            layouts += [(names, folder) for folder in self._folders]
        best = table.iloc[:0]
        for relative, folder in layouts:
            there = _there(root / folder, relative)
            if there.sum() > len(best):
                best = table[there].assign(path=str(root / folder) + os.sep + relative[there])
        if best.empty:
            raise DataError(
                f"{root} holds none of the images that the tables of {self.name!r} list.",
                offenders=table["file"].head(),
                remedy=f"Name a folder with {self._wanted()}.",
            )
        if best["patient_id"].equals(best["image_id"]):
            warnings.warn(
                f"{self.name} does not say whose an image is: every image counts as a patient of its own, "
                "and a patient with several may be in training and test.",
                CxrWarning,
                stacklevel=3,
            )
        return best.reset_index(drop=True), info | {
            "data_dir": str(data_dir), "missing_images": len(table) - len(best)
        }  # fmt: skip

    def load(
        self, data_dir: str | Path | None = None, *, finding: str | None = None, seed: int = 0, **options: Any
    ) -> Cohort:
        """The images that the folder holds, with the published table.

        - ``finding``: the column that becomes the label.
        - ``options``: policies, as ``choices`` lists them; and those of :func:`.cohort_from_files`.
        - Returns: Cohort whose ``info`` has that of :meth:`table`, ``missing_images`` and
          ``published_split``.
        """
        policy = {name: options.pop(name) for name in self.choices if name in options}
        table, info = self.files(data_dir, finding=finding, **policy)
        table["split"], info["published_split"] = _split(table, seed)
        return cohort_from_files(self.name, table, info=info, seed=seed, **options)

    def _chosen(self, policy: Mapping[str, str]) -> dict[str, str]:
        for name, way in policy.items():
            if way not in self.choices.get(name, ()):
                ways = "; ".join(f"{key}: {', '.join(values)}" for key, values in self.choices.items())
                raise ConfigError(f"{self.name!r} has no {name}={way!r}.", remedy=f"It has {ways or 'none'}.")
        return {name: policy.get(name, ways[0]) for name, ways in self.choices.items()}

    def _wanted(self) -> str:
        return f"the files of {self.name}, in {' or '.join(folder or 'itself' for folder in self._folders)}"


def decide(
    values: pd.Series, *, uncertain: str = "ignore", blank: str = "ignore", readers: str = "majority"
) -> pd.Series:
    """Labels from what was published: float, 0, 1, or NaN where a row is to be left out.

    - ``values``: shares of readers from 0 to 1, −1 (uncertain), NaN (nothing said).
    - ``uncertain``, ``blank``: what −1 and NaN become: ``positive``, ``negative``, or ``ignore``, left out.
    - ``readers``: how many must see a finding: ``any``, the ``majority`` (more than half) or ``all``.
    """
    below = {"any": 0.0, "majority": 0.5, "all": 1 - 1e-9}[readers]
    becomes = {"ignore": np.nan, "positive": 1.0, "negative": 0.0}
    label = (values > below).astype(float)
    return label.mask(values < 0, becomes[uncertain]).mask(values.isna(), becomes[blank])


def read_terms(lists: pd.Series, findings: Mapping[str, str], separator: str = "|") -> pd.DataFrame:
    """A column a finding: 1 where a term of the cell matches its pattern whole, else 0; NaN where empty."""
    texts = lists.dropna().str.lower().unique()
    terms = [[term.strip() for term in text.split(separator)] for text in texts]
    found = {
        finding: [float(any(re.fullmatch(pattern, term) for term in row)) for row in terms]
        for finding, pattern in findings.items()
    }
    return pd.DataFrame(found, index=texts).reindex(lists.str.lower()).set_axis(lists.index)


def beside(root: Path | None, pattern: str) -> Path | None:
    """The first file of a name in the folder or the folders in it; None where there is none, or no folder."""
    found = [] if root is None else [*sorted(root.glob(pattern)), *sorted(root.glob(f"*/{pattern}"))]
    return next((path for path in found if not path.name.startswith(".")), None)


def _there(folder: Path, files: pd.Series) -> pd.Series:
    """Which files, as paths in the folder, are there: of a part of an archive, few patients' folders are.

    Capitals do not matter to the search, since they do not to some file systems.
    """

    @cache
    def names(place: str) -> set[str]:
        there = os.listdir(folder / place) if (folder / place).is_dir() else ()
        return {name.casefold() for name in there}

    def there(file: str) -> bool:
        first, second, *_ = (*file.split("/", 2), "")
        known = first.casefold() in names("") and (not second or second.casefold() in names(first))
        return known and os.path.isfile(f"{folder}{os.sep}{file}")

    return files.map(there).astype(bool)


def _split(table: pd.DataFrame, seed: int) -> tuple[np.ndarray, bool]:
    """The published parts; val or test, where it is not published, is a tenth of the training patients."""
    parts = table.get("published_part")
    absent = [part for part in ("val", "test") if parts is None or not (parts == part).any()]
    if parts is None or len(absent) == 2:
        return split_by_patient(table["patient_id"], seed=seed), False
    val, test = (_DRAWN_SHARE * (part in absent) for part in ("val", "test"))
    drawn = split_by_patient(table["patient_id"], (1 - val - test, val, test), seed=seed)
    return np.where(parts == "train", drawn, parts), True
