"""What an audit looks for, how a finding is judged, and what to do about it.

The rule
--------
A probe is *established* where its p-value, corrected by Holm over all probes of the audit, is below 0.05.

severe
    Established, the lower limit of the AUC's interval at least 0.60, and at least a quarter of what the whole
    image reaches above one half; and the probe cannot see the disease.
warning
    Established, an AUC of at least 0.55, and it cannot see the disease; or it would be severe, and what it
    sees may be medicine (age and sex, the size of a compressed file), or another finding explains it. A
    column that all but equals the label, which may be the label in other words; and a source that pixels do
    not show.
note
    Established, and all that is left; a probe that may see the disease is never more than a note.
fine
    Not established.

Kinds of image (:mod:`cxrlib.audit.kinds`) that are unevenly ill are at least a warning once established: a
rare kind that is all ill moves no AUC, and a network is wrong on its healthy. Their p is that of the most
uneven kind, for all kinds at once.

Splits are asked whether validation or test is told from training, class by class, and corrected among
themselves: established with an AUC of at least 0.60 is a warning, less than that a note. Never severe: a test
from elsewhere may be wanted, and it is the result that then says less of new patients from training's source.

Counts (duplicates, patients in two splits) are severe from one in a hundred images on, else warnings.
Annotations burned into the pixels, declared or seen, are a warning: they may name a patient, whatever they
say of the label.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from cxrlib.evaluation.metrics import Estimate

SEVERITIES = ("severe", "warning", "note", "fine")
SIGNIFICANCE, SEVERE_AUC, WARNING_AUC, SEVERE_SHARE, SEVERE_COUNT = 0.05, 0.60, 0.55, 0.25, 0.01


@dataclass(frozen=True)
class Probe:
    """One thing that an audit looks at.

    - ``name``, ``title``: in numbers and file names; for people.
    - ``group``: sign, made, view, table, file, source, split
      or leak.
    - ``sees``: what its result may be other than a shortcut: "no" disease, "yes", "perhaps" (at most a
      warning).
    - ``what``: what the classifier was shown, as a sentence.
    - ``advice``: what to do where it is found.
    """

    name: str
    title: str
    group: str
    sees: str
    what: str
    advice: str


_LISTED = tomllib.loads((Path(__file__).parent / "data" / "probes.toml").read_text(encoding="utf-8"))

#: Every probe by its name.
PROBES: dict[str, Probe] = {name: Probe(name, **about) for name, about in _LISTED.items()}

#: Groups whose probes are measured in the picture itself.
IN_PIXELS = ("sign", "made")

#: Columns that may be medicine and not a shortcut.
DEMOGRAPHIC = ("age", "sex", "gender")


def column_probe(column: str) -> Probe:
    """The probe of one column of the table."""
    perhaps = column.lower() in DEMOGRAPHIC
    return Probe(
        f"column_{column}", f"Column {column}", "table", "perhaps" if perhaps else "no",
        f"The column {column} of the table, without pixels.",
        "Ask how it comes to go with the label: selection, or medicine? Match or balance the classes by it."
        if perhaps else "Match or balance the classes by it, and report results within its levels.",
    )  # fmt: skip


def judged(probe: Probe, auc: Estimate, p_holm: float, share: float | None) -> str:
    """The severity of a probe's AUC by this module's rule; ``share`` None: the whole image gave nothing."""
    if p_holm >= SIGNIFICANCE:
        return "fine"
    if probe.sees == "yes":
        return "note"
    strong = auc.low is not None and auc.low >= SEVERE_AUC and (share is None or share >= SEVERE_SHARE)
    if strong:
        return "severe" if probe.sees == "no" else "warning"
    return "warning" if auc.value >= WARNING_AUC and probe.sees == "no" else "note"


def judged_apart(auc: Estimate, p_holm: float) -> str:
    """The severity of a split told from training by this module's rule."""
    if p_holm >= SIGNIFICANCE:
        return "fine"
    return "warning" if auc.value >= SEVERE_AUC else "note"


def judged_count(probe: Probe, concerned: int, of: int) -> str:
    """The severity of a count of images: severe from one in a hundred on."""
    if not concerned:
        return "fine"
    if probe.sees == "perhaps":
        return "note"
    return "severe" if concerned >= SEVERE_COUNT * of else "warning"
