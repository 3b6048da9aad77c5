"""The probes of an audit: each is shown something, and asked for the label of patients it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrlib.audit import kinds
from cxrlib.audit.accepted import Accepted
from cxrlib.audit.asked import Asking, Made, Shown, ask
from cxrlib.audit.features import LOOKS, SIGNS
from cxrlib.audit.files import DIMENSIONS, ENCODING, SIZE
from cxrlib.audit.made import MADE
from cxrlib.audit.naming import GOES_ALONG, explained, jpeg_traces
from cxrlib.audit.ridge import reduced
from cxrlib.audit.rules import PROBES, Probe, column_probe, judged
from cxrlib.audit.stats import Held, normal_scores, within
from cxrlib.audit.tables import asked_columns, column_features, levels_by_label
from cxrlib.audit.together import Steps
from cxrlib.cohort import Cohort
from cxrlib.errors import DataError
from cxrlib.evaluation.metrics import Estimate
from cxrlib.images.burned_in import SMALLEST
from cxrlib.parallel import progress_bar

TELLING = 8  # images kept as evidence, half from each end
DISGUISE = 0.995  # AUC from which on a column is the label in other words, or as good as that
_WHICH = (
    "Decide which it is. The label in other words (a diagnosis, a report) is no input: keep it away from "
    "training. Anything else, such as a hospital or a device, is a shortcut beside which no result on these "
    "images can be believed: collect both classes in the same way."
)
_RANKED = ("marker", "text", "border", "devices", "projection", *MADE)
_SOURCES = 10  # that are told from pixels


@dataclass(frozen=True, eq=False)
class Finding:
    """What one probe found, and its severity: severe, warning, note or fine.

    - ``auc``, ``p_value``, ``p_holm``: on held-out patients, with its interval; by permutation, and corrected
      over all probes. None for counts.
    - ``share``: (AUC − ½) over the whole image's; None where that is not above ½.
    - ``images``: for counts: how many images are concerned.
    - ``explained_by``, ``left``: another finding that it goes along with, and the AUC left among images alike
      in that.
    - ``detail``: more, by probe: pairs, levels, reasons.
    - ``telling``: image ids, most label-like first, least last.
    - ``reused``: taken from an earlier audit of the same data.
    - ``accepted``: as known, by the user's ``audit.toml``.
    """

    probe: Probe
    severity: str
    auc: Estimate | None = None
    p_value: float | None = None
    p_holm: float | None = None
    share: float | None = None
    images: int | None = None
    explained_by: str | None = None
    left: float | None = None
    detail: dict = field(default_factory=dict)
    telling: tuple[str, ...] = ()
    reused: bool = False
    accepted: Accepted | None = None

    @property
    def remains(self) -> float | None:
        """The share of its excess over one half that is left among images alike in what explains it."""
        if self.left is None or self.auc is None:
            return None
        return (self.left - 0.5) / (self.auc.value - 0.5)

    @property
    def shown_by_another(self) -> bool:
        """Whether another finding shows at least part of the same thing, by the estimate alone."""
        return self.remains is not None and self.remains <= GOES_ALONG

    @property
    def worse(self) -> bool:
        """Whether it is accepted, established and, beyond chance, above its ceiling."""
        if self.accepted is None or self.severity == "fine":
            return False
        reached = self.images if self.auc is None else self.auc.low
        return reached is not None and reached > self.accepted.ceiling

    @property
    def standing(self) -> str:
        """What it counts as: its severity; "accepted", or where it is worse than that, "severe"."""
        if self.accepted is None or self.severity == "fine":
            return self.severity
        return "severe" if self.worse else "accepted"


class Probes:
    """The probes of one cohort, each kept on disk when it is finished; ``work`` None: nowhere."""

    def __init__(
        self,
        cohort: Cohort,
        work: Path | None,
        permutations: int,
        seed: int,
        progress: bool | None = None,
        together: int = 1,
        workers: int | None = 1,
    ):
        self.cohort, self.permutations, self.seed, self.work = cohort, permutations, seed, work
        self.progress, self.together = progress, together  # labels whose p-values are corrected together
        self.workers = workers
        self.labels, self.patients = cohort.labels, cohort.patients  # made anew whenever they are asked for
        self.held: dict[str, tuple[Probe, Held, bool, dict]] = {}
        #: How an attribute's features are made, and its column if it is one; views are no attributes.
        self.attributes: dict[str, tuple[Made, pd.Series | None]] = {}

    def ask(self, probe: Probe, features: Made, **detail: object) -> Held:
        """Have the label predicted for held-out patients, or take what was found before."""
        self.ask_each([(probe, features, detail)])
        return self.held[probe.name][1]

    def ask_each(
        self,
        probes: Sequence[tuple[Probe, Made, dict]],
        done: Callable[[int], object] = lambda _: None,
        beside: Sequence[tuple] = (),
    ) -> dict[str, tuple[Any, bool]]:
        """The same of many, in several processes where that pays; and all answers."""
        asked = [(made, [Asking(one.name, self.labels, self.permutations)]) for one, made, _ in probes]
        found = self.found(asked, done, beside)
        for probe, _, detail in probes:
            held, reused = found[probe.name]
            if isinstance(held, DataError):
                raise held
            self.held[probe.name] = (probe, held, reused, detail)
        return found

    def found(
        self,
        questions: Sequence[tuple[Made, Sequence[Asking]]],
        done: Callable[[int], object] = lambda _: None,
        beside: Sequence[tuple] = (),
    ) -> dict[str, tuple[Any, bool]]:
        """The answers to any questions, which are not judged with the probes."""
        return ask(
            questions, self.patients, work=self.work, seed=self.seed, workers=self.workers, done=done,
            beside=beside,
        )  # fmt: skip


def ask_all(
    probes: Probes, features: Mapping[str, np.ndarray], facts: pd.DataFrame, source: str | None
) -> Steps[tuple[list[Finding], list[str]]]:
    """Every probe that the cohort allows, judged together; and which columns were not asked, and why.

    Yields the probes' p-values, and is sent them corrected.

    - ``features``: of :func:`cxrlib.audit.features.describe`.
    - ``facts``: of :func:`cxrlib.audit.files.file_facts`, or some of its columns, or none.
    - ``source``: the table's column of where images come from, or None.
    """
    table, labels = probes.cohort.table, probes.cohort.labels
    source = source if source in table and table[source].nunique() > 1 else None
    columns, left_out = asked_columns(table, without=[source] if source else [])
    groups = {
        name: [c for c in group if c in facts and facts[c].nunique(dropna=False) > 1]
        for name, group in (("dimensions", DIMENSIONS), ("encoding", ENCODING), ("file_size", SIZE))
    }
    codes, away = kinds.grouped(features, probes.seed, probes.workers)
    jobs: list[tuple[Probe, Made, dict]] = [(PROBES[name], Shown(features, name), {}) for name in LOOKS]
    large = [name for name in MADE if np.isfinite(features[name]).any()]
    jobs += [(PROBES[name], Shown(features, name, shaped), {}) for name in (*SIGNS, *large)]
    jobs.append((PROBES["kinds"], partial(_indicators, codes), {}))
    for name, group in groups.items():
        if group:
            levels = {column: levels_by_label(facts[column], labels) for column in group}
            jobs.append((PROBES[name], partial(column_features, facts[group], group), {"levels": levels}))
    for column in columns:
        levels = {column: levels_by_label(table[column], labels)}
        own = table[[column]]  # and no more, since another process is given a copy
        jobs.append((column_probe(column), partial(column_features, own, [column]), {"levels": levels}))
    if source:
        detail = {"levels": {source: levels_by_label(table[source], labels, _SOURCES)}}
        jobs.append((PROBES["source"], partial(column_features, table[[source]], [source]), detail))
    named = {column_probe(column).name: column for column in columns} | ({"source": source} if source else {})
    for probe, made, _ in jobs:
        if probe.group != "view":
            values = table[named[probe.name]] if probe.name in named else None
            probes.attributes[probe.name] = (made, values)
    # The smallest p-value that there can be must stay below 0.05 after correction for so many probes.
    probes.permutations = max(probes.permutations, 40 * (len(jobs) + 1) * probes.together)
    with progress_bar(len(jobs) + 2, "Probing", probes.progress, unit="probe") as bar:
        about = codes, away, labels, probes.patients, probes.permutations, probes.seed
        uneven = probes.ask_each(jobs, bar.update, [(_uneven, *about)])["uneven kinds"][0]
        aucs = {column: probes.held[column_probe(column).name][1].auc.value for column in columns}
        together = [column for column, auc in aucs.items() if auc < DISGUISE]
        if len(together) > 1:
            probes.ask(PROBES["metadata"], partial(column_features, table[together], together))
        probe, held, reused, _ = probes.held["kinds"]
        detail, shown = kinds.told(uneven, table["image_id"].to_numpy(str), labels.mean())
        least = min((one.p for one in uneven), default=1.0)  # few images of a kind move no AUC
        probes.held["kinds"] = (probe, replace(held, p_value=least), reused, detail)
        if source:
            probes.held["source"][3].update(_told_apart(probes, features, source))
        bar.update(1)
    findings = judged_all(probes, (yield [held.p_value for _, held, _, _ in probes.held.values()]))
    alike = replace(findings["kinds"], telling=shown)
    findings["kinds"] = replace(alike, severity="warning") if alike.severity == "note" else alike
    for column in set(columns) - set(together):
        found = findings[column_probe(column).name]
        findings[found.probe.name] = replace(
            found, severity="warning", probe=replace(found.probe, advice=_WHICH),
            detail=found.detail | {"disguise": True},
        )  # fmt: skip
    if source:
        findings["source"] = _seen(findings["source"])
    limits = [f"Column {column!r} was not asked: {why}." for column, why in left_out.items()]
    if not large:
        limits.append(f"How pictures were made was not asked: all are smaller than {SMALLEST} pixels.")
    scores = {name: held.scores for name, (_, held, _, _) in probes.held.items()}
    return list(explained(findings, scores, labels, jpeg_traces(features)).values()), limits


def telling(ids: np.ndarray, patients: np.ndarray, scores: np.ndarray) -> tuple[str, ...]:
    """The ids of the images with the highest scores, then of those with the lowest; one a patient."""
    chosen = []
    for order in (np.argsort(-scores, kind="stable"), np.argsort(scores, kind="stable")):
        first: dict[str, str] = {}
        for row in order[: 20 * TELLING]:
            first.setdefault(patients[row], ids[row])
        chosen.append(list(first.values())[: TELLING // 2])
    return (*chosen[0], *chosen[1][::-1])


def _uneven(*about: Any) -> dict[str, list[kinds.Kind]]:
    return {"uneven kinds": kinds.uneven(*about)}


def _indicators(codes: np.ndarray) -> np.ndarray:
    return np.eye(codes.max() + 1)[codes]


def shaped(name: str, values: np.ndarray) -> np.ndarray:
    """Signs have long tails: their ranks are given beside them. Of the sides it is left which way round."""
    if name == "mirrored":
        values = side_of(values)
    return np.concatenate([values, normal_scores(values)], axis=1) if name in _RANKED else values


def signs_of(features: Mapping[str, np.ndarray]) -> np.ndarray:
    """All that is measured in the picture by name, side by side: float, (N, D)."""
    known = [name for name in (*SIGNS, *MADE) if np.isfinite(features[name]).any()]
    return np.concatenate([shaped(name, features[name]) for name in known], axis=1)


def side_of(values: np.ndarray) -> np.ndarray:
    """Which way round each image is: (N, D) -> (N, 1), 0 or 1, NaN where that is unknown.

    What most images have on one side (the heart) is the first direction of :func:`cxrlib.audit.signs.sides`
    before any mean is taken off, whether few, half or nearly all are mirrored. The label has no part in it.
    Only the sign is kept: disease makes the sides more alike, and does not exchange them.
    """
    known = np.isfinite(values).all(axis=1)
    which = np.full((len(values), 1), np.nan)
    if known.any():
        many = values[known].astype(float)
        many /= np.linalg.norm(many, axis=1, keepdims=True) + 1e-9
        which[known, 0] = many @ np.linalg.eigh(many.T @ many)[1][:, -1] > 0
    return which


def judged_all(probes: Probes, corrected: np.ndarray) -> dict[str, Finding]:
    """A finding for each probe, by its corrected p-value."""
    whole = probes.held["whole"][1].auc
    room = whole.value - 0.5 if whole.low is not None and whole.low > 0.5 else None
    ids = probes.cohort.table["image_id"].to_numpy(str)
    findings = {}
    for (name, (probe, held, reused, detail)), p_holm in zip(probes.held.items(), corrected, strict=True):
        share = None if room is None else (held.auc.value - 0.5) / room
        severity = judged(probe, held.auc, float(p_holm), share)
        found = Finding(probe, severity, held.auc, held.p_value, float(p_holm), share, detail=detail)
        findings[name] = replace(found, telling=telling(ids, probes.patients, held.scores), reused=reused)
    return findings


def _told_apart(probes: Probes, features: Mapping[str, np.ndarray], source: str) -> dict[str, object]:
    """How well each source is told from the others by pixels, and the whole image's AUC within sources."""
    column = probes.cohort.table[source].astype(object)
    values = column.where(column.notna(), "missing").astype(str)
    asked: dict[str, Asking] = {}
    for number, name in enumerate(values.value_counts().index[:_SOURCES]):
        mine = (values == name).to_numpy().astype(np.int64)
        if 20 <= mine.sum() <= len(mine) - 20:
            # Not judged, so that no permutation is asked.
            asked[name] = Asking(f"source {number}", mine, 0, components=None)
    whole = partial(_reduced, Shown(features, "whole"))
    found = probes.found([(whole, list(asked.values()))])
    told = {}
    for name, one in asked.items():
        held, _ = found[one.name]
        if isinstance(held, DataError):
            raise held
        told[name] = held.auc.as_dict()
    codes = np.unique(values, return_inverse=True)[1]
    scores = probes.held["whole"][1].scores
    labels = probes.labels
    mixed = any(0 < labels[codes == code].mean() < 1 for code in np.unique(codes))
    inside = within(labels, scores, codes.astype(float), bins=None) if mixed else None
    return {"told_from_pixels": told, "whole_within_sources": inside}


def _reduced(made: Made) -> np.ndarray:
    return reduced(made())


def _seen(found: Finding) -> Finding:
    """A source that goes with the label is severe if pixels show it, or if no source has both classes; one
    that does not is a note if they do.
    """
    if found.detail["whole_within_sources"] is None:
        return replace(found, severity="severe")
    visible = max((auc["low"] for auc in found.detail["told_from_pixels"].values()), default=0.0) >= 0.7
    if found.severity == "severe" and not visible:
        return replace(found, severity="warning")
    if found.severity == "fine" and visible:
        return replace(found, severity="note")
    return found
