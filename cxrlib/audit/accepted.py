"""Findings that are known and accepted, as a file beside the labels says: ``audit.toml``.

    [[accepted]]
    probe = "column_ward"     # as audit.json names it
    reason = "Wards differ in who lies there; results are reported ward by ward."
    ceiling = 0.75            # an AUC; for counts, such as duplicates, images
    finding = "pneumonia"     # of this one alone, where several findings are audited

An accepted finding is shown with its reason and does not end in status 2, until it is worse than its ceiling:
until the lower limit of its AUC's interval is above it, so that chance alone stops no pipeline, or until more
images are concerned. Then it does, whatever its severity.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cxrlib.audit.rules import PROBES, column_probe
from cxrlib.errors import ConfigError

if TYPE_CHECKING:
    from cxrlib.audit.run import Audit

NAME = "audit.toml"
_KEYS = ("probe", "reason", "ceiling", "finding")
_COUNTS = ("burned_in", "printed_text")


@dataclass(frozen=True)
class Accepted:
    """A finding that is known: its probe, why it is accepted, and up to which AUC or number of images.

    ``finding``: of which label it is, where several are audited; None for all.
    """

    probe: str
    reason: str
    ceiling: float
    finding: str | None = None


def read_accepted(
    path: str | Path, columns: Collection[str], findings: Collection[str] = ()
) -> tuple[Accepted, ...]:
    """The entries of an ``audit.toml``.

    - ``columns``: of the table that is audited: each has a probe. ``findings``: that are audited, by name.
    - Raises ConfigError, naming file and key: no TOML; a key that is unknown, missing or of the wrong kind; a
      probe or finding that there is not; one accepted twice.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(
            f"{path} cannot be read as TOML: {error}.",
            remedy="Write [[accepted]] entries as docs/audit.md does.",
        ) from None
    entries = content.pop("accepted", None)
    if content or not isinstance(entries, list):
        unknown = next(iter(content), None)
        what = "no [[accepted]]" if unknown is None else f"a key {unknown!r} beside [[accepted]]"
        raise ConfigError(
            f"{path} has {what}.",
            remedy="Give each accepted finding an entry [[accepted]] with probe, reason and ceiling.",
        )
    probes = {*PROBES, *(column_probe(str(column)).name for column in columns)}
    accepted: list[Accepted] = []
    for number, entry in enumerate(entries, 1):
        one = _entry(entry, f"{path}, entry {number}", probes, findings)
        if any((one.probe, one.finding) == (other.probe, other.finding) for other in accepted):
            raise ConfigError(f"{path} accepts {one.probe!r} twice.", remedy="Keep one entry.")
        accepted.append(one)
    return tuple(accepted)


def accept(audit: Audit, entries: Sequence[Accepted], finding: str | None = None) -> Audit:
    """The audit with its accepted findings marked; a limit names entries whose probe was not asked.

    ``finding``: the name of the label that is audited; entries of other findings are passed over, and one of
    this very finding goes before one of all.
    """
    mine = {one.probe: one for one in entries if one.finding is None}
    mine |= {one.probe: one for one in entries if one.finding is not None and one.finding == finding}
    asked = {found.probe.name for found in audit.findings}
    limits = tuple(f"{name!r} is accepted, and was not asked here." for name in mine if name not in asked)
    findings = tuple(replace(found, accepted=mine.get(found.probe.name)) for found in audit.findings)
    return replace(audit, findings=findings, limits=(*audit.limits, *limits))


def _entry(entry: object, where: str, probes: Collection[str], findings: Collection[str]) -> Accepted:
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: it is no table.", remedy="Write it as [[accepted]].")
    if wrong := [key for key in entry if key not in _KEYS]:
        raise ConfigError(f"{where}: there is no key {wrong[0]!r}.", remedy=f"Use {', '.join(_KEYS)}.")
    for key in ("probe", "reason", "finding"):
        value = entry.get(key)
        if (key != "finding" or key in entry) and not (isinstance(value, str) and value.strip()):
            what = "is empty or no text" if key in entry else "is missing"
            raise ConfigError(f"{where}: the key {key!r} {what}.", remedy=f"Give a text as {key}.")
    probe, ceiling, finding = entry["probe"], entry.get("ceiling"), entry.get("finding")
    if probe not in probes:
        raise ConfigError(
            f"{where}: probe: there is no probe {probe!r}.", offenders=sorted(probes),
            remedy="Name it as audit.json does; a column's probe is column_ and the column's name.",
        )  # fmt: skip
    counted = probe in _COUNTS or (probe in PROBES and PROBES[probe].group == "leak")
    good = isinstance(ceiling, int | float) and not isinstance(ceiling, bool) and abs(ceiling) < 1e15
    value = float(ceiling) if good and ceiling is not None else math.nan
    if not (value >= 0 and value.is_integer() if counted else 0.5 <= value <= 1):
        wanted = "a whole number of images" if counted else "an AUC from 0.5 to 1"
        what = f"{ceiling!r} is not {wanted}" if "ceiling" in entry else "the key 'ceiling' is missing"
        raise ConfigError(
            f"{where}: ceiling: {what}.", remedy=f"Give {wanted}, above which it is not accepted."
        )
    if finding is not None and finding not in findings:
        raise ConfigError(
            f"{where}: finding: {finding!r} is not audited.", offenders=findings,
            remedy="Name one of --findings, or leave the key out.",
        )  # fmt: skip
    return Accepted(probe, entry["reason"].strip(), value, finding)
