"""Which finding a shortcut is called by, where several show it.

Nearly all processing, and many things in a picture, change its texture, the spacing of its greys, or what is
left of an older JPEG. So these three are *general*: they come behind a finding that wholly explains them and
says what the thing is. Where two of them explain each other, the greys come first, then traces of compression
if they were brought about, and not if they were wiped out; else the stronger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import spearmanr

from cxrlib.audit.rules import IN_PIXELS
from cxrlib.audit.stats import within_and_error

if TYPE_CHECKING:
    from cxrlib.audit.probes import Finding

_GENERAL = ("grey_levels", "texture", "compression")
GOES_ALONG, ECHO = 0.6, 0.25  # of a finding's excess over one half, among images alike in its cause
_GRID, _FINE, _COLOUR = slice(0, 8), slice(6, 12), 32  # of the features of compression, and of texture
_WHITE = -0.6  # from here to -2/3 a residual is of white noise; of 121 public radiographs it is -0.5


def jpeg_traces(features: Mapping[str, np.ndarray]) -> str:
    """What became of traces of JPEG in those images that have less than half of the others': "wiped", or
    "brought" about in the others; "alike" where none have so much less.

    JPEG leaves less of the fine spectrum. Where images with traces have more of it, something else, such as
    blur or resampling, has wiped out the others'; so it has where those without are white with noise.
    """
    traces, fine = -features["compression"][:, _GRID].mean(1), features["texture"][:, _FINE].mean(1)
    known = np.isfinite(traces) & np.isfinite(fine)
    if known.sum() < 3:
        return "alike"
    traces, fine, colour = traces[known], fine[known], features["texture"][known, _COLOUR]
    few, many = np.quantile(traces, (0.1, 0.9))
    if few >= many / 2:
        return "alike"
    white = np.median(colour[traces <= few]) < _WHITE
    return "wiped" if white or spearmanr(traces, fine).statistic > 0 else "brought"


def explained(
    findings: Mapping[str, Finding], scores: Mapping[str, np.ndarray], labels: np.ndarray, traces: str
) -> dict[str, Finding]:
    """Where images alike in another sign show nothing more, a finding is an echo of it.

    Signs are gone through from the strongest down, general ones behind what wholly explains them, then the
    views. A sign that has lost three quarters of its excess is a warning at most; a view that merely shows a
    sign is not let off, but told which it shows.

    - ``scores``: held-out ones, (N,), by probe; ``traces``: of :func:`jpeg_traces`.
    """
    findings = dict(findings)
    excess = {name: found.auc.value - 0.5 for name, found in findings.items() if found.auc is not None}

    def left(name: str, cause: str) -> tuple[float, float]:
        """What a finding has above one half among images alike in the cause, and no more than that for sure:
        less its standard error.
        """
        value, error = within_and_error(labels, scores[name], scores[cause])
        return value - 0.5, max(value - 0.5 - error, 0.0)

    def echoes(name: str, cause: str) -> bool:
        return left(name, cause)[1] < ECHO * excess[name]

    def strength(name: str) -> float:
        """Finer than an AUC, which is that of the label's agreement where a thing is seen in every image."""
        return float(np.corrcoef(labels, scores[name])[0, 1])

    def first(cause: str, name: str) -> bool:
        """Whether the cause of something general is to be named before it."""
        if cause in ("kinds", name) or findings[cause].severity != "severe" or not echoes(name, cause):
            return False
        if cause not in _GENERAL or cause == "grey_levels" or not echoes(cause, name):
            return True
        if traces == "alike":
            return name != "grey_levels" and strength(cause) > strength(name)
        return name == {"wiped": "compression", "brought": "texture"}[traces]

    flagged = [f for f in findings.values() if f.severity in ("severe", "warning")]
    # Kinds of image, which are told by all of these, come last.
    named = sorted(
        (f.probe.name for f in flagged if f.probe.group in (*IN_PIXELS, "file")),
        key=lambda name: (name == "kinds", -excess[name]),
    )
    for name in (one for one in _GENERAL if one in named):
        last = max((place for place, cause in enumerate(named) if first(cause, name)), default=-1)
        if last > (place := named.index(name)):
            named.insert(last, named.pop(place))
    causes: list[str] = []
    for name in [*named, *(f.probe.name for f in flagged if f.probe.group == "view")]:
        found = findings[name]
        rest = {cause: left(name, cause) for cause in causes}
        cause = min(rest, key=lambda c: rest[c][1], default=None)
        if cause is not None and rest[cause][1] < GOES_ALONG * excess[name]:
            echo = rest[cause][1] < ECHO * excess[name] and found.probe.group != "view"
            severity = "warning" if echo else found.severity
            found = replace(found, severity=severity, explained_by=cause, left=0.5 + rest[cause][0])
            findings[name] = found
        if found.severity == "severe" and found.probe.group != "view":
            causes.append(name)
    return findings
