"""Of every attribute: does it tell the label, do pixels show it, does the classifier follow it; and a word.

used
    The classifier's score follows it with the label held fixed, in both classes in the same direction: p
    below 0.05 after Holm over everything that was asked, and a concordance of at least 0.60, or of 0.65
    where it does not tell the label here: few networks are the same for every sex and exposure.
exploitable
    It tells the label (established, an AUC of at least 0.55) and pixels show it: measured from the picture,
    or told from it with the label held fixed (p as above, a concordance of at least 0.55).
selection only
    It tells the label, and no pixel was shown to say so. Whoever selected the patients left it; a network
    that sees pictures alone cannot take it up.
harmless
    None of these.

Without a classifier nothing is called used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from cxrlib.audit import use
from cxrlib.audit.asked import Made, each
from cxrlib.audit.probes import Finding
from cxrlib.audit.ridge import Ridge
from cxrlib.audit.rules import SIGNIFICANCE, WARNING_AUC, Probe
from cxrlib.audit.together import Steps
from cxrlib.audit.use import Attribute, Told
from cxrlib.cohort import Cohort
from cxrlib.parallel import progress_bar

USED, USED_ALONE, VISIBLE = 0.60, 0.65, 0.55
VERDICTS = ("used", "exploitable", "selection only", "harmless")


@dataclass(frozen=True, eq=False)
class Use:
    """How one classifier stands to one attribute.

    ``levels`` and ``auc_within``: of :func:`cxrlib.audit.use.by_level` and ``auc_within``.
    """

    told: Told
    p_holm: float
    auc_within: float
    levels: list[dict]

    def follows(self, least: float) -> bool:
        """Whether the score follows the attribute in both classes, with at least this concordance."""
        both = min(self.told.healthy, self.told.ill) > 0.5
        return bool(both and self.p_holm < SIGNIFICANCE and self.told.concordance.value >= least)


@dataclass(frozen=True, eq=False)
class Asked:
    """One attribute and its verdict.

    - ``finding``: what the audit of the data says of it: whether it tells the label.
    - ``visible``, ``p_visible``: how well pixels tell it, and Holm's p; None where it is measured from the
      picture itself.
    - ``uses``: classifier -> how its score stands to it.
    """

    finding: Finding
    visible: Told | None
    p_visible: float | None
    uses: Mapping[str, Use]

    @property
    def probe(self) -> Probe:
        return self.finding.probe

    @property
    def useful(self) -> bool:
        found = self.finding
        if found.auc is None or found.p_holm is None:
            return False
        return bool(found.p_holm < SIGNIFICANCE and found.auc.value >= WARNING_AUC)

    @property
    def seen(self) -> bool:
        """Whether pixels show it."""
        if self.visible is None or self.p_visible is None:
            return True
        return bool(self.p_visible < SIGNIFICANCE and self.visible.concordance.value >= VISIBLE)

    @property
    def used_by(self) -> tuple[str, ...]:
        least = USED if self.useful else USED_ALONE
        return tuple(name for name, one in self.uses.items() if one.follows(least))

    @property
    def verdict(self) -> str:
        """One of :data:`VERDICTS`."""
        if self.used_by:
            return "used"
        if not self.useful:
            return "harmless"
        return "exploitable" if self.seen else "selection only"


@dataclass(frozen=True, eq=False)
class Question:
    """An attribute to ask about: its finding, how its features are made, and its column if it is one."""

    finding: Finding
    features: Made
    column: pd.Series | None
    in_pixels: bool


def asking(
    cohort: Cohort,
    questions: list[Question],
    pixels: Sequence[Made],
    scores: pd.DataFrame,
    threshold: Mapping[str, float],
    *,
    seed: int = 0,
    permutations: int = 1999,
    progress: bool | None = None,
    together: int = 1,
    workers: int | None = 1,
) -> Steps[tuple[Asked, ...]]:
    """Verdicts, worst first. Yields p-values, and is sent them corrected.

    - ``pixels``: how features are made, float, (N, D) each: what "the whole image" is to the audit, and the
      signs, which see what is too small for it.
    - ``scores``: float, a column a classifier, rows as the cohort's; without columns nothing is called used.
    - ``threshold``: classifier -> the score from which on it calls ill.
    - ``together``: labels whose p-values are corrected together.
    """
    labels, patients = cohort.labels, cohort.patients
    count = sum(not one.in_pixels for one in questions) + len(questions) * len(scores.columns)
    permutations = max(
        permutations, 40 * (count + 1) * together
    )  # so that the smallest p survives the correction
    given = {str(name): values.to_numpy(float) for name, values in scores.items()}
    # Without a classifier there is nothing to ask of what is measured in the picture itself.
    asked = [place for place, one in enumerate(questions) if given or not one.in_pixels]
    making = [(_eye, place, made, labels, patients, seed) for place, made in enumerate(pixels)]
    blind = all(questions[place].in_pixels for place in asked)
    made = {} if blind else dict(each(making, workers, len(labels)))
    eyes = [made[place] for place in sorted(made)]
    options = {"seed": seed, "permutations": permutations}
    jobs = [
        (_told, place, questions[place].features, questions[place].column, questions[place].in_pixels,
         () if questions[place].in_pixels else eyes, given, labels, patients, options)
        for place in asked
    ]  # fmt: skip
    answers: dict[int, tuple[Attribute | None, Told | None, dict[str, Told]]] = {}
    with progress_bar(len(questions), "Holding the label fixed", progress, unit="attribute") as bar:
        bar.update(len(questions) - len(jobs))
        for place, *answer in each(jobs, workers, len(labels)):
            answers[place] = tuple(answer)
            bar.update(1)
    rows = [(one, *answers.get(place, (None, None, {}))) for place, one in enumerate(questions)]
    p_values = [p for _, _, seen, told in rows for p in _p_values(seen, told)]
    del eyes, made, jobs  # while others' p-values are waited for
    corrected = iter((yield p_values).tolist())
    verdicts = []
    for one, found, seen, told in rows:
        p_visible = next(corrected) if seen else None
        uses = {}
        for name, value in told.items():
            assert found is not None
            mine = given[name]
            levels = use.by_level(found, mine, labels, threshold[name])
            uses[name] = Use(value, next(corrected), use.auc_within(found, mine, labels), levels)
        verdicts.append(Asked(one.finding, seen, p_visible, uses))
    return tuple(sorted(verdicts, key=_rank))


def _eye(place: int, made: Made, labels: np.ndarray, patients: np.ndarray, seed: int) -> tuple[int, Ridge]:
    return place, use.eye(made(), labels, patients, seed)


def _told(
    place: int,
    made: Made,
    column: pd.Series | None,
    in_pixels: bool,
    eyes: Sequence[Ridge],
    scores: Mapping[str, np.ndarray],
    labels: np.ndarray,
    patients: np.ndarray,
    options: dict[str, Any],
) -> tuple[int, Attribute, Told | None, dict[str, Told]]:
    """Of one attribute: its values, how well pixels tell it, and how each classifier's score follows it."""
    found = use.attribute(np.asarray(made()), labels, column, in_pixels=in_pixels)
    seen = use.told(eyes, found.value, labels, patients, **options) if eyes else None
    uses = {name: use.use(found, mine, labels, patients, **options) for name, mine in scores.items()}
    return place, replace(found, features=found.features[:0]), seen, uses  # not to be copied back


def _p_values(seen: Told | None, told: Mapping[str, Told]) -> list[float]:
    return [one.p_value for one in (seen, *told.values()) if one is not None]


def _rank(one: Asked) -> tuple[int, float]:
    strength = max((u.told.concordance.value for u in one.uses.values()), default=0.0)
    return VERDICTS.index(one.verdict), -(strength or (one.finding.auc.value if one.finding.auc else 0.0))
