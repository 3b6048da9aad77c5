"""What Kermany's official test has that its training has not: strata by looking, and how much they explain.

``figures/kermany/strata_labels.csv`` holds what was read off contact sheets without names, diagnosis or
scores: the letter and its place, print, tone, age, arms, borders, devices; 100 images twice. One stratum, a
second machine, is told by a tall thin R and has nearly no healthy child in training. :func:`detect` finds
its images by that letter, :func:`strata` counts, and says which share of the false alarms and of the fall
from validation to test the stratum accounts for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from skimage.feature import match_template
from skimage.transform import resize
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxrlib.cohort import Cohort
from cxrlib.errors import DataError
from cxrlib.evaluation.metrics import Estimate, proportion
from cxrlib.training.inference import predict
from cxrlib.training.recipes import recipe
from cxrlib.training.store import train_or_load

ATTRIBUTES = {
    "letter": ("tall", "serif", "small", "A-P", "none"),
    "place": ("upper", "lower", "none"),
    "print": ("yes", "no"),
    "tone": ("washed_out", "normal", "contrasty"),
    "age": ("infant", "child", "adolescent"),
    "arms": ("raised", "down", "not_seen"),
    "border": ("yes", "no"),
    "device": ("yes", "no"),
}
"""What was read off each image, and the values it may have."""

STRATA = ("machine", "adolescent", "border", "infant", "child")
"""Each image is in the first that holds: the machine's, an adolescent's, with a border, or by age."""

SIZE = 224
# Where each template lies in a training image: rows from, to, columns from, to, at 224 pixels.
_TALL = ("train/PNEUMONIA/person1521_virus_2649.jpeg", 18, 39, 12, 27)
_KV = ("train/PNEUMONIA/person1521_virus_2649.jpeg", 210, 224, 203, 215)
_SMALL = ("train/NORMAL/IM-0552-0001.jpeg", 10, 24, 32, 45)
_SERIF = ("train/PNEUMONIA/person499_virus_1008.jpeg", 47, 77, 0, 14)
_TALL_SIZES = ((24, 15), (20, 13), (18, 12), (16, 11), (15, 9), (13, 9))
_SMALL_SIZES = ((14, 13), (12, 11), (10, 9))


def read_labels(path: str | Path) -> pd.DataFrame:
    """The table of what was seen, checked.

    - Returns: DataFrame: ``image_id``, ``split``, ``label``, ``reading``, a column for each of
      :data:`ATTRIBUTES`, and ``second_<attribute>``, empty where an image was read once.
    - Raises DataError: the file, a column or a value is not there or not one of those allowed; or an image
      stands twice.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read: {error}.", remedy="Take figures/kermany/strata_labels.csv."
        ) from error
    wanted = ["image_id", "split", "label", *ATTRIBUTES, *(f"second_{name}" for name in ATTRIBUTES)]
    if missing := [name for name in wanted if name not in table]:
        raise DataError(f"{path} has no column {missing[0]!r}.", offenders=missing, remedy="Add it.")
    if (twice := table["image_id"].duplicated()).any():
        raise DataError(
            f"{path} names an image twice.", offenders=table["image_id"][twice], remedy="Drop one row."
        )
    for column, values in ATTRIBUTES.items():
        wrong = ~(table[column].isin(values) & table[f"second_{column}"].isin([*values, ""]))
        if wrong.any():
            raise DataError(
                f"{path} has values of {column!r} that are not in the protocol.",
                offenders=table["image_id"][wrong],
                remedy=f"Use {', '.join(values)}.",
            )
    return table.astype({"label": int})


def matches(image: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Normalised correlation of a template with each place of an image, from -1 to 1."""
    return np.asarray(match_template(image, template))  # type: ignore[no-untyped-call]


def sized(template: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A template at another size, (rows, columns)."""
    return np.asarray(
        resize(template, shape, anti_aliasing=True, preserve_range=True)  # type: ignore[no-untyped-call]
    )


def templates(cohort: Cohort) -> list[np.ndarray]:
    """The tall R, the small R, the R with serifs and the print KV, float32 (h, w), of training images.

    Raises a DataError for images that are not Kermany's at 224 pixels a side.
    """
    if cohort.images.shape[1:] != (SIZE, SIZE):
        raise DataError(
            f"The letters were cut at {SIZE} pixels a side, and these images have "
            f"{' × '.join(map(str, cohort.images.shape[1:]))}.",
            remedy=f"Load them with image_size={SIZE}.",
        )
    where = {image_id: i for i, image_id in enumerate(cohort.table["image_id"])}
    if missing := [name for name, *_ in (_TALL, _SMALL, _SERIF) if name not in where]:
        raise DataError(
            "Images that hold a template are missing.", offenders=missing, remedy="Load all of Kermany's."
        )
    return [
        np.asarray(cohort.images[where[name]], np.float32)[top:bottom, left:right]
        for name, top, bottom, left, right in (_TALL, _SMALL, _SERIF, _KV)
    ]


def letter_features(cohort: Cohort, rows: np.ndarray | None = None) -> np.ndarray:
    """How well the letters and prints match each image: normalised correlations and edges, (N, 20).

    The images must be Kermany's, 224 pixels a side; the templates are cut from three training images.
    """
    tall, small, serif, kv = templates(cohort)
    tall_sizes = [np.pad(sized(tall, s), 2, mode="edge") for s in _TALL_SIZES]
    others = [*(sized(small, s) for s in _SMALL_SIZES), serif]
    found = []
    for i in range(len(cohort)) if rows is None else rows:
        # Letters are cut off by the upper and the left edge: repeat it, so that a part still matches.
        image = np.pad(np.asarray(cohort.images[i], np.float32), ((8, 0), (4, 0)), mode="edge")
        corner = image[:88, :79]
        maps = [matches(corner, template) for template in tall_sizes]
        edges = (image[8:30, 190:], image[216:, 190:], image[224:, 4:64])
        found.append(
            [m.max() for m in maps]
            + [m[:10].max() for m in maps]
            + [matches(corner, template).max() for template in others]
            + [matches(image[200:, 180:], kv).max()]
            + [float(np.abs(np.diff(edge, axis=1)).mean()) for edge in edges]
        )
    return np.array(found, np.float32)


def detect(
    features: np.ndarray, image_ids: Sequence[str], labels: pd.DataFrame
) -> tuple[np.ndarray, dict[str, Estimate]]:
    """Whose letter is the second machine's, by a logistic regression taught on training images alone.

    - Returns: bool (N,), and ``detector.sensitivity`` and ``detector.specificity`` on the labelled images of
      the test, with Wilson's intervals.
    """
    read = labels.set_index("image_id").reindex(list(image_ids))
    known, tall = read["letter"].notna().to_numpy(), (read["letter"] == "tall").to_numpy()
    taught = known & (read["split"] != "test").to_numpy()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000))
    found = model.fit(features[taught], tall[taught]).predict(features).astype(bool)
    yes, no = known & ~taught & tall, known & ~taught & ~tall
    return found, {
        "detector.sensitivity": proportion(int(found[yes].sum()), int(yes.sum())),
        "detector.specificity": proportion(int((~found[no]).sum()), int(no.sum())),
    }


def agreement(labels: pd.DataFrame, replicates: int = 2000, seed: int = 0) -> dict[str, Estimate]:
    """Cohen's kappa of the two readings, one for each attribute, with a bootstrap interval over images."""
    twice = labels[labels["second_letter"] != ""]
    drawn = np.random.default_rng(seed).integers(len(twice), size=(replicates, len(twice)))
    numbers = {}
    for name in ATTRIBUTES:
        first, second = pd.factorize(pd.concat([twice[name], twice[f"second_{name}"]]))[0].reshape(2, -1)
        draws = _kappa(first[drawn], second[drawn])
        draws = draws[np.isfinite(draws)]  # kappa has no value where a draw holds one answer alone
        low, high = np.percentile(draws, (2.5, 97.5))
        kappa = float(_kappa(first[None], second[None])[0])
        numbers[f"agreement.{name}"] = Estimate(kappa, min(low, kappa), max(high, kappa), len(twice))
    return numbers


def _kappa(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cohen's kappa of each row of two arrays of codes (R, N); scikit-learn's takes 12 ms a row."""
    kinds = int(max(first.max(), second.max())) + 1
    pairs = first * kinds + second + np.arange(len(first))[:, None] * kinds**2
    counts = np.bincount(pairs.ravel(), minlength=len(first) * kinds**2).reshape(-1, kinds, kinds)
    shares = counts / first.shape[1]
    chance = (shares.sum(1) * shares.sum(2)).sum(1)
    with np.errstate(invalid="ignore"):
        return np.asarray((np.trace(shares, axis1=1, axis2=2) - chance) / (1 - chance))


def stratum(labels: pd.DataFrame) -> np.ndarray:
    """The stratum of each labelled image, one of :data:`STRATA`."""
    tests = [labels["letter"] == "tall", labels["age"] == "adolescent", labels["border"] == "yes"]
    return np.select([*tests, labels["age"] == "infant"], STRATA[:4], STRATA[4])


def networks(cohort: Cohort, preset: str, seeds: Sequence[int], of: np.ndarray | None = None) -> np.ndarray:
    """Probabilities of images (the cohort's, or ``of``) by the residual network, shape (seeds, N)."""
    trained = [train_or_load(cohort, recipe("residual", preset, seed=seed)) for seed in seeds]
    return np.stack([predict(model, cohort.images if of is None else of) for model, _ in trained])


def explain(
    labels: pd.DataFrame,
    patients: Sequence[str],
    scores: np.ndarray,
    *,
    replicates: int = 2000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Specificity and sensitivity by stratum at ½, and what of the fall from validation to test is whose.

    - ``labels``: of every healthy child of the validation and the test part, and of some ill ones.
    - ``patients``, ``scores``: aligned with ``labels``: patient ids, and probabilities (seeds, N).
    - Returns: Means over the seeds with 95% bootstrap intervals by patient. ``false_alarms.machine`` is the
      share of the test's false alarms that are the machine's; ``false_alarms.explained`` leaves out those
      that it would have had at the others' specificity. ``fall.composition`` is the share of the fall of
      specificity that is gone once the machine's images are left out of both parts; ``fall.within`` is the
      rest. ``fall.mix`` is the share that is gone when the test's strata have the validation's weights.
    """
    split, label = labels["split"].to_numpy(), labels["label"].to_numpy()
    right = ((np.asarray(scores) >= 0.5) == label).mean(axis=0)
    of = stratum(labels)
    codes, names = pd.factorize(np.asarray(patients))
    random = np.random.default_rng(seed)
    counts = np.vstack(
        [np.ones(len(names)), random.multinomial(len(names), np.full(len(names), 1 / len(names)), replicates)]
    )
    weight = counts[:, codes]
    part = {(s, k): (split == s) & (label == k) for s in ("val", "test") for k in (0, 1)}
    machine = of == "machine"
    numbers: dict[str, Estimate] = {}

    def mean(rows: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # a draw may hold none of a small stratum
            return weight[:, rows] @ right[rows] / weight[:, rows].sum(axis=1)

    def note(name: str, values: np.ndarray, n: int) -> None:
        low, high = np.nanpercentile(values[1:], (2.5, 97.5))
        numbers[name] = Estimate(
            values[0], min(low, values[0]), max(high, values[0]), n=int(n), seeds=len(scores)
        )

    for (s, k), rows in part.items():
        kind, metric = (("healthy", "specificity"), ("ill", "sensitivity"))[k]
        groups = {"all": rows, "machine": rows & machine, "others": rows & ~machine}
        groups |= {name: rows & (of == name) for name in STRATA[1:]}
        for name, group in groups.items():
            if group.sum() > 1:
                where = name if s == "test" else f"val.{name}"
                note(f"{kind}.{where}.{metric}", mean(group), group.sum())
    val, test = part["val", 0], part["test", 0]
    alarms = weight[:, test] @ (1 - right[test])
    its = weight[:, test & machine] @ (1 - right[test & machine])
    expected = weight[:, test & machine].sum(axis=1) * (1 - mean(test & ~machine))
    note("false_alarms.machine", its / alarms, test.sum())
    note("false_alarms.explained", (its - expected) / alarms, test.sum())
    both = val | test
    fall = mean(val) - mean(test)
    rest = mean(val & ~machine) - mean(test & ~machine)
    mixed = sum(
        weight[:, val & (of == name)].sum(axis=1)
        / weight[:, val].sum(axis=1)
        * np.nan_to_num(mean(test & (of == name)))
        for name in STRATA
    )
    note("fall.specificity", fall, both.sum())
    note("fall.without_machine", rest, (both & ~machine).sum())
    note("fall.composition", 1 - rest / fall, both.sum())
    note("fall.within", rest / fall, both.sum())
    note("fall.mix", (mixed - mean(test)) / fall, both.sum())
    return numbers


def counts(table: pd.DataFrame, labels: pd.DataFrame, found: np.ndarray) -> dict[str, Estimate]:
    """The strata's shares by split and class: by eye of the labelled, by the detector of all images."""
    numbers = {}
    of = stratum(labels)
    for split in ("train", "val", "test"):
        for k, kind in enumerate(("healthy", "ill")):
            rows = ((labels["split"] == split) & (labels["label"] == k)).to_numpy()
            for name in STRATA:
                numbers[f"labelled.{split}.{kind}.{name}"] = proportion(
                    int((of[rows] == name).sum()), int(rows.sum())
                )
            rows = ((table["split"] == split) & (table["label"] == k)).to_numpy()
            numbers[f"detected.{split}.{kind}.machine"] = proportion(int(found[rows].sum()), int(rows.sum()))
    return numbers


def numbering(table: pd.DataFrame) -> dict[str, Estimate]:
    """The last number of the test's healthy children and the first of the training's, in each numbering."""
    healthy = table[table["label"] == 0]
    number = healthy["image_id"].map(lambda name: int(re.findall(r"IM-(\d+)", name)[0]))
    second, test = healthy["image_id"].str.contains("NORMAL2"), healthy["split"] == "test"
    return {
        f"numbering.{name}.{key}": Estimate(float(value), n=int(rows.sum()))
        for name, rows in (("IM", ~second), ("NORMAL2-IM", second))
        for key, value in (
            ("test_last", number[rows & test].max()),
            ("training_first", number[rows & ~test].min()),
        )
    }


def first_numbers(table: pd.DataFrame, share: float = 0.1) -> np.ndarray:
    """Healthy children of the training folder with the lowest numbers of each numbering, bool (N,).

    The test's healthy children have the numbers just below. If a block of numbers were a world of its own, a
    network that has not seen this one would fail on it as it does on the test.
    """
    healthy = ((table["label"] == 0) & (table["split"] != "test")).to_numpy()
    number = table["image_id"].str.extract(r"IM-(\d+)", expand=False).fillna("-1").astype(int).to_numpy()
    second = table["image_id"].str.contains("NORMAL2").to_numpy()
    chosen = np.zeros(len(table), bool)
    for rows in (healthy & second, healthy & ~second):
        numbers = np.unique(number[rows])
        chosen |= rows & np.isin(number, numbers[: int(share * len(numbers))])
    return chosen


def pictured(labels: pd.DataFrame, each: int = 4, seed: int = 0) -> list[str]:
    """Ids of healthy children drawn at random: other machines and the second, of validation, then of test."""
    random = np.random.default_rng(seed)
    ids: list[str] = []
    for split in ("val", "test"):
        for machine in (False, True):
            rows = (labels["split"] == split) & (labels["label"] == 0)
            rows &= (labels["letter"] == "tall") == machine
            ids += sorted(random.choice(labels.loc[rows, "image_id"], each, replace=False))
    return ids


def painted(images: np.ndarray) -> np.ndarray:
    """The images, uint8 (N, 224, 224), black in the corners with date, time and numbers."""
    made = np.array(images)
    made[:, :32, 178:] = 0
    made[:, 208:, :62] = 0
    return made


def strata(
    table: pd.DataFrame,
    features: np.ndarray,
    scores: np.ndarray,
    labels: pd.DataFrame,
    without_first: np.ndarray,
) -> Mapping[str, Estimate]:
    """All numbers of the study, by dotted name.

    - ``table``: of Kermany's Cohort: ``image_id``, ``patient_id``, ``split``, ``label``.
    - ``features``, ``scores``: of :func:`letter_features` at 224 pixels and of :func:`networks`, aligned with
      ``table``.
    - ``labels``: of :func:`read_labels`.
    - ``without_first``: as ``scores``, by networks taught without the images of :func:`first_numbers`.
    """
    where = pd.Series(np.arange(len(table)), index=table["image_id"])
    if missing := sorted(set(labels["image_id"]) - set(where.index)):
        raise DataError(
            "Labelled images are not among those loaded.", offenders=missing, remedy="Load all of Kermany's."
        )
    rows = where[labels["image_id"]].to_numpy()
    labels = labels.assign(split=table["split"].to_numpy()[rows], label=table["label"].to_numpy()[rows])
    read = set(labels["image_id"])
    healthy = table[(table["label"] == 0) & (table["split"] != "train")]
    if missing := sorted(set(healthy["image_id"]) - read):
        raise DataError(
            "Healthy children of the validation or the test part are not labelled.",
            offenders=missing,
            remedy="Split with seed 0, whose validation part was labelled, or label them too.",
        )
    found, numbers = detect(features, table["image_id"].tolist(), labels)
    numbers |= agreement(labels) | numbering(table)
    numbers |= counts(table, labels, found)
    first = first_numbers(table)
    called = proportion(float((without_first[:, first] < 0.5).mean(axis=0).sum()), int(first.sum()))
    numbers["first_numbers.healthy.specificity"] = replace(called, seeds=len(without_first))
    return numbers | explain(labels, table["patient_id"].to_numpy()[rows], scores[:, rows])
