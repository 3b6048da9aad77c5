"""What an audit says of classifiers, in words that page and terminal share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cxrlib.audit.interventions import Effect
from cxrlib.audit.run import Audit
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


def fed(one: Mapping[str, Any]) -> str:
    """How a classifier was fed (:attr:`cxrlib.audit.models.Classifiers.fed`): size, range, channels."""
    channels = "one channel" if one["channels"] == 1 else f"{one['channels']} channels, all alike"
    return f"{one['size']} × {one['size']} pixels, greys {_GREYS[one['range']]} ({one['range']}), {channels}"


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
            f"It was shown to use {len(used)} of the {asked} attributes that were asked about: "
            f"{', '.join(used)}. The others are not ruled out."
        ]
    else:
        said = [
            f"It was not shown to use any of the {asked} attributes that were asked about. This is no proof "
            "that it uses none."
        ]
    if "fed" in audit.classifiers[name]:  # the one that was run on changed pictures
        words = {one: effect_word(one) for one in audit.effects}
        answered = [f"“{one.title}”" for one, word in words.items() if word == "answers"]
        if answered:
            said.append(f"More of its calls turn than by the control after {', '.join(answered)}.")
        said += [_STILL[one.name].format(auc=one.auc) for one, word in words.items() if word == "still tells"]
    return said
