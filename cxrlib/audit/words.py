"""What an audit says, in words that page and terminal share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from cxrlib.audit.interventions import Effect
from cxrlib.audit.models import doubtful
from cxrlib.audit.naming import ECHO
from cxrlib.audit.probes import Finding
from cxrlib.audit.rules import PROBES, SEVERE_AUC, SEVERE_SHARE
from cxrlib.audit.run import Audit
from cxrlib.datasets import columns
from cxrlib.datasets import labels as classes
from cxrlib.evaluation.metrics import Estimate

_GREYS = {
    "0-1": "from 0 to 1", "0-255": "from 0 to 255", "-1-1": "from -1 to 1", "xrv": "from -1024 to 1024",
    "imagenet": "from 0 to 1 less ImageNet's mean, in units of its spread",
}  # fmt: skip
_STILL = {
    "lungs_out": "With the lungs painted over, its AUC is {auc}, still above chance: it tells ill from "
    "healthy by something other than what is in the lungs (their outline is left).",
    "frame_only": "Shown nothing but the outer tenth, its AUC is {auc}, still above chance: it tells ill "
    "from healthy by what lies around the chest.",
}
_TAKEN = {
    "probability": "its two columns are probabilities, of which the {which} was taken",
    "softmax": "its two columns are logits, and the probability of the {which} was taken",
    "as it is": "of its {of} columns number {column}, counted from 0, was taken",
}


def first(audit: Audit) -> list[str]:
    """What is most likely the matter and what to do first, in sentences."""
    by_name = {one.probe.name: one for one in audit.findings}

    def root(found: Finding) -> Finding:
        cause = by_name.get(found.explained_by or "") if found.shown_by_another else None
        return root(cause) if cause is not None and cause.standing == "severe" else found

    followers = Counter(root(one).probe.name for one in audit.findings)
    heads = [one for one in audit.findings if one.standing == "severe" and root(one) is one]
    # Views, and kinds of image, say that something differs and not what.
    causes = [one for one in heads if one.probe.group != "view" and one.probe.name != "kinds"]
    others = [one for one in heads if one not in causes]
    if not heads:
        said = ["Nothing severe was found. This is no proof that there is nothing."]
        chosen = next((one for one in audit.findings if one.standing == "warning"), None)
        if chosen is not None:
            said.append(f"Look first at the warning “{chosen.probe.title}”. {chosen.probe.advice}")
        return said

    def named(found: Finding) -> str:
        many = followers[found.probe.name] - 1
        which = f"{many} other finding{'s show' if many > 1 else ' shows'} the same thing or part of it"
        size = f"{found.images:,} images" if found.auc is None else f"AUC {found.auc}"
        return f"{found.probe.title}, {size}" + f" ({which})" * (many > 0)

    said = [f"Most likely at fault: {'; '.join(map(named, causes or others))}."]
    said.append(f"Do this first. {(causes or others)[0].probe.advice}")
    if causes and others:
        listed = "; ".join(map(named, others))
        said.append(
            f"Severe too, and not explained by that: {listed}. These say that something differs, not what."
        )
    return said + _followed(audit, [one.probe.name for one in heads])


def _followed(audit: Audit, names: list[str]) -> list[str]:
    """Which of these findings the classifiers' scores follow; those of which the same holds together."""
    asked = sorted(
        (one for one in audit.attributes if one.probe.name in names), key=lambda a: names.index(a.probe.name)
    )
    by_answer: dict[tuple[str, ...], list[str]] = {}
    for name in audit.classifiers if asked else ():
        by_answer.setdefault(tuple(a.probe.title for a in asked if name in a.used_by), []).append(name)
    said = []
    for titles, mine in by_answer.items():
        rest = [one.probe.title for one in asked if one.probe.title not in titles]
        follow = f"follow {_listed(titles)}{' and ' * bool(rest)}" if titles else ""
        were = f"were not shown to follow {_listed(rest, 'or')}" if rest else ""
        said.append(f"The scores of {_listed(mine)} {follow}{were}.")
    return said


def _listed(parts: Iterable[str], word: str = "and") -> str:
    *most, last = parts
    return f"{', '.join(most)} {word} {last}" if most else last


def left(found: Finding) -> str:
    """What is left of a finding among images alike in the one that explains it, as a sentence."""
    if found.explained_by is None or found.remains is None:
        return ""
    said = f" Among images alike in “{PROBES[found.explained_by].title}” an AUC of {found.left:.2f} is left: "
    if found.remains < ECHO:
        return said + "it shows the same thing."
    if found.shown_by_another:
        return said + "part of it is the same thing."
    return said + (
        "that is most of it, so it may be a thing of its own; whether part of it is the same thing cannot be "
        "told apart from chance."
    )


def why_warning(found: Finding) -> str:
    """Which rule keeps a warning from being severe, as a sentence; empty for all else."""
    if found.standing != "warning":
        return ""
    if found.probe.group == "split":
        why = ["a part that differs from training may be wanted"]
    elif "files" in found.detail:
        why = ["text in the pixels may name a patient, and need not tell the label"]
    elif found.auc is None:
        why = ["fewer than one in a hundred images are concerned"]
    else:
        echo = found.remains is not None and found.remains < ECHO
        why = [
            said for said, holds in (
                (f"the lower limit of its AUC is below {SEVERE_AUC:.2f}",
                 found.auc.low is None or found.auc.low < SEVERE_AUC),
                ("it reaches less than a quarter of what the whole image gives above one half",
                 found.share is not None and found.share < SEVERE_SHARE),
                ("it may be medicine", found.probe.sees == "perhaps"),
                ("it may be the label in other words", "disguise" in found.detail),
                ("another finding explains it", echo),
            ) if holds
        ] or [
            "pixels do not show it" if found.probe.group == "source" else "another finding may explain it"
        ]  # fmt: skip
    return f"It is a warning and not severe because {', and '.join(why)}."


def smallest_p(values: Iterable[tuple[float | None, float | None]], draws: int | None) -> float | None:
    """The corrected p that several have, if no smaller one was possible; None if that is not known.

    - ``values``: p and corrected p of each question.
    - ``draws``: at least so many permutations were made.
    """
    known = [(p, corrected) for p, corrected in values if p is not None and corrected is not None]
    least = min((corrected for _, corrected in known), default=1.0)
    tied = [p for p, corrected in known if corrected == least]
    if draws is None or len(tied) < 2 or least >= 1:
        return None
    made = 1 / min(tied) - 1  # p is one over these and one more where no draw was as good
    return least if made > draws - 0.5 and abs(made - round(made)) < 1e-6 else None


def read(facts: Mapping[str, Any]) -> list[str]:
    """How the table was read, in sentences; those on labels and lost values are in the audit's limits too."""
    counts, readings = facts.get("classes") or {}, facts.get("columns") or {}
    said = [columns.told(readings)] if readings else []
    said += [classes.told(counts)] if sum(map(len, counts.values())) > 2 else []
    return said + columns.lost_much(readings)


def worst(audit: Audit, found: Mapping[str, Any]) -> str:
    """The worst group (of :func:`cxrlib.audit.use.worst_group`), in words."""
    name, title = next(
        (name, one.probe.title) for one in audit.attributes for name in one.uses
        if f"{name}, {one.probe.title}" == found["attribute"]
    )  # fmt: skip
    kind = "ill" if found["measure"] == "sensitivity" else "healthy"
    estimate = Estimate(found["value"], found["low"], found["high"])
    where = f"with “{title}” {found['level'] or '(empty)'}"
    for this, that in (("ill", "healthy"), ("healthy", "ill")):
        if found["level"] == f"as among the {this}":
            where = f"that in “{title}” are more like the {this} than the {that}"
    return f"{name}, {found['measure']} {estimate} among the {found['n']:,} {kind} images {where}"


def p(value: float | None) -> str:
    """A p-value, for people."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def fed(one: Mapping[str, Any]) -> str:
    """How a classifier was fed (:attr:`cxrlib.audit.models.Classifiers.fed`): size, range, channels; and
    which of its answer's columns was taken.
    """
    channels = "one channel" if one["channels"] == 1 else f"{one['channels']} channels, all alike"
    said = f"{one['size']} × {one['size']} pixels, greys {_GREYS[one['range']]} ({one['range']}), {channels}"
    taken = one.get("taken")
    if not taken:
        return said
    which = ("first", "second")[taken["column"]] if taken["of"] == 2 else ""
    return f"{said}; {_TAKEN[taken['how']].format(which=which, **taken)} (--model-output {taken['column']})"


def good_at(one: Mapping[str, Any]) -> str:
    """How good a classifier is here (:func:`cxrlib.audit.models.performance`), and in each split."""
    parts = [
        f"{part} {'one class only' if its['auc'] is None else Estimate(**its['auc'])} ({its['n']:,} images)"
        for part, its in one.get("by_split", {}).items()
    ]
    said = f"AUC {Estimate(**one['auc'])}"
    return f"{said}; {', '.join(parts)}" if len(parts) > 1 else said


def shown(estimate: Estimate) -> str:
    """An AUC or concordance; words where the images do not differ in what was looked at."""
    alike = estimate.value == estimate.low == estimate.high == 0.5
    return "no difference found" if alike else str(estimate)


def effect_word(one: Effect) -> str:
    """What an effect is called."""
    if one.expected == "falls":
        return "still tells" if (one.auc.low or 0) > 0.5 else "at chance"
    return "answers" if one.believed else "no more than the control"


def verdict_on(audit: Audit, name: str) -> list[str]:
    """What was shown of a classifier, and what was not, in sentences."""
    used = [
        f"{one.probe.title} {one.uses[name].told.concordance}"
        for one in audit.attributes if name in one.used_by
    ]  # fmt: skip
    asked = len(audit.attributes)
    if used:
        said = [
            f"Its scores follow {len(used)} of the {asked} attributes that were asked about: "
            f"{', '.join(used)}. The others are not ruled out."
        ]
        files = [
            f"“{one.probe.title}”" for one in audit.attributes
            if name in one.used_by and one.probe.group == "file"
        ]  # fmt: skip
        if files:
            said.append(f"A network cannot see {_listed(files)}: it sees what goes along with it.")
    else:
        said = [
            f"Its scores were not shown to follow any of the {asked} attributes that were asked about. This "
            "is no proof that it uses none."
        ]
    if "fed" in audit.classifiers[name]:  # the one that was run on changed pictures
        words = {one: effect_word(one) for one in audit.effects}
        answered = [f"“{one.title}”" for one, word in words.items() if word == "answers"]
        if answered:
            said.append(f"More of its calls turn than by the control after {', '.join(answered)}.")
        said += [_STILL[one.name].format(auc=one.auc) for one, word in words.items() if word == "still tells"]
    whole = next((one.auc for one in audit.findings if one.probe.name == "whole"), None)
    weak = doubtful(audit.classifiers, whole).get(name)
    return said if weak is None else [weak, *said]
