"""An audit on paper: ``audit.json`` for programs, and one HTML file with the evidence for people.

The page asks for nothing from anywhere: pictures are in it, styles too, and a content security policy forbids
the rest. Names of files, columns and their values come from strangers and are escaped.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from PIL import Image

from cxrlib.audit import verdicts, words
from cxrlib.audit.interventions import Effect
from cxrlib.audit.probes import Finding
from cxrlib.audit.rules import SIGNIFICANCE
from cxrlib.audit.run import SCHEMA, Audit
from cxrlib.audit.use import Told, worst_group
from cxrlib.audit.verdicts import Asked
from cxrlib.cohort import Cohort
from cxrlib.errors import ConfigError, DataError
from cxrlib.evaluation.eda_images import class_means
from cxrlib.evaluation.metrics import Estimate
from cxrlib.evaluation.results import SCHEMA as RESULTS
from cxrlib.evaluation.results import provenance
from cxrlib.images.regions import VIEWS, shown
from cxrlib.io.decode import resize
from cxrlib.io.storage import atomic_path

_SIDE = 144  # of a picture on the page
#: How files of any version begin.
_MARKS = {".html": ("Content-Security-Policy", "<title>Audit of "), ".json": ('"schema": ', '"name": "audit')}


def numbers(audit: Audit) -> dict[str, Estimate]:
    """``<probe>.auc``, ``.p``, ``.p_holm``, ``.share``, ``.images`` and ``.severe`` (0 or 1), where they
    apply.
    """
    named: dict[str, Estimate] = {}
    for found in audit.findings:
        name = re.sub(r"[^\w+-]", "_", found.probe.name)
        while f"{name}.severe" in named:
            name += "_"
        if found.auc is not None:
            named[f"{name}.auc"] = found.auc
        for key, value in (("p", found.p_value), ("p_holm", found.p_holm), ("share", found.share)):
            if value is not None:
                named[f"{name}.{key}"] = Estimate(float(value))
        if found.images is not None:
            named[f"{name}.images"] = Estimate(found.images, n=audit.facts["images"])
        named[f"{name}.severe"] = Estimate(int(found.severity == "severe"))
    return named


def content(audit: Audit, *, date: str | None = None, **made_from: Any) -> dict:
    """What ``audit.json`` holds; ``date``: of the audit; ``made_from``: of
    :func:`cxrlib.evaluation.results.provenance`.

    :func:`cxrlib.evaluation.results.read_record` reads it too, for its ``numbers``.
    """
    return {
        "schema": RESULTS,
        "name": "audit",
        "audit_schema": SCHEMA,
        "verdict": audit.verdict,
        "severe": list(audit.severe),
        "cohort": audit.facts,
        "numbers": {name: number.as_dict() for name, number in numbers(audit).items()},
        "findings": [_as_dict(found) for found in audit.findings],
        "classifiers": dict(audit.classifiers),
        "attributes": [_attribute(one) for one in audit.attributes],
        "worst_group": worst(audit),
        "interventions": [_effect(one) for one in audit.effects],
        "doubted_labels": {
            "judges": dict(audit.doubts.judges or {}), "images": [asdict(one) for one in audit.doubts.found],
        },
        "limits": list(audit.limits),
        "settings": audit.settings,
        "provenance": provenance(
            dataset=audit.facts["name"], content_hash=audit.facts["content_hash"],
            seed=audit.settings["seed"], **made_from,
        ) | {"date": date},
    }  # fmt: skip


def write(
    audit: Audit,
    cohort: Cohort,
    out: str | Path,
    *,
    pictures: bool = True,
    date: str | None = None,
    **made_from: Any,
) -> tuple[Path, Path]:
    """Write ``audit.json`` and ``audit.html`` into ``out``; each appears whole or not at all."""
    out = Path(out)
    held = content(audit, date=date, **made_from)
    text = json.dumps(held, indent=1, ensure_ascii=False, allow_nan=False, default=str)
    bodies = {"audit.json": text + "\n", "audit.html": page(audit, cohort if pictures else None, date)}
    for name, body in bodies.items():
        with atomic_path(out / name) as temporary:
            temporary.write_text(body, encoding="utf-8", errors="replace")
    return out / "audit.json", out / "audit.html"


def spare(folders: Iterable[Path]) -> None:
    """Raise ConfigError where a folder holds an audit.html or audit.json that no audit wrote."""
    for file in (folder / name for folder in folders for name in ("audit.html", "audit.json")):
        if file.is_file():
            with open(file, encoding="utf-8", errors="replace") as stream:
                start = stream.read(600)
            if not all(mark in start for mark in _MARKS[file.suffix]):
                raise ConfigError(
                    f"{file} was not written by cxr audit, which would replace it.",
                    remedy="Give another folder with --out, or move the file away.",
                )


def sentence(found: Finding) -> str:
    """What a finding says, in words."""
    if found.auc is None:
        detail = found.detail
        if found.probe.name == "patients":
            people = f"{detail['patients']} patients are in more than one split"
            return f"{people}, with {found.images} images outside training."
        if found.probe.name == "burned_in":
            return f"{found.images} of {detail['dicom']} DICOM files say that annotations are burned in."
        if found.probe.name == "printed_text":
            denied = f"; the headers of {detail['denied']} deny it" if detail["denied"] else ""
            return f"{found.images} of {detail['looked_at']} files show a line of printed characters{denied}."
        if not found.images:
            return "None."
        pairs, exact = (f"{n} pair{'s' * (n != 1)}" for n in (detail["pairs"], detail["exact"]))
        return f"{found.images} images form {pairs} of one picture; in {exact} both images are identical."
    if found.probe.group == "split":
        return _apart(found)
    said = f"A classifier that saw nothing else reaches an AUC of {found.auc} on patients new to it"
    if found.share is not None and found.probe.name != "whole":
        part = f"{max(found.share, 0):.0%} of" if found.share < 1 else "no less than"
        said += f", {part} what the whole image gives it above one half"
    said += f". Corrected p {words.p(found.p_holm)}."
    if found.detail.get("disguise"):
        said += (
            " It is the label in other words, or a perfect shortcut. The columns taken together leave it out."
        )
    said += words.left(found)
    if told := found.detail.get("told_from_pixels"):
        best = max(told, key=lambda name: told[name]["value"])
        said += f" Pixels tell {best} from the others with an AUC of {told[best]['value']:.2f}."
    if "whole_within_sources" in found.detail:
        inside = found.detail["whole_within_sources"]
        said += (
            " No source has both classes: disease and source cannot be told apart." if inside is None else
            f" Within a source the whole image reaches {inside:.2f}."
        )  # fmt: skip
    return said + _most_uneven(found)


def _apart(found: Finding) -> str:
    """What a finding of group split says."""
    rows = found.detail["rows"]
    told = [row for row in rows if row["p_holm"] < SIGNIFICANCE]
    if not told:
        return f"None of {len(rows)} questions told the two parts apart."
    best = "; ".join(
        f"“{row['title']}” among the {row['class']} {row['auc']['value']:.2f}" for row in told[:3]
    )
    return (
        f"{len(told)} of {len(rows)} questions told the two parts apart on patients new to them, best (AUC; "
        f"0.5 is nothing): {best}. Corrected p {words.p(told[0]['p_holm'])}."
    )


def between_splits(audit: Audit) -> list[tuple[str, dict[tuple[str, str], dict]]]:
    """For the page: the probes that tell a split from training, best first, at most twelve, and of each its
    rows by split and class.
    """
    rows = {
        (row["title"], found.probe.name, row["class"]): row
        for found in audit.findings if found.probe.group == "split" for row in found.detail["rows"]
    }  # fmt: skip
    told = sorted(
        (row["auc"]["value"], title) for (title, *_), row in rows.items() if row["p_holm"] < SIGNIFICANCE
    )
    titles = list(dict.fromkeys(title for _, title in reversed(told)))[:12]
    return [
        (title, {(part, kind): row for (t, part, kind), row in rows.items() if t == title})
        for title in titles
    ]


def _most_uneven(found: Finding) -> str:
    """The level of a column in which the label is most unevenly frequent, as a sentence."""
    uneven = []
    for column, levels in found.detail.get("levels", {}).items():
        total = sum(one["images"] for one in levels)
        share = sum(one["images"] * one["share_ill"] for one in levels) / max(total, 1)
        share = found.detail.get("share_ill", share)  # where not all levels are listed
        uneven += [(abs(one["share_ill"] - share) * one["images"], share, column, one) for one in levels]
    if not uneven or found.severity == "fine":
        return ""
    _, share, column, one = max(uneven, key=lambda entry: entry[0])
    return (
        f" Of the {one['images']:,} images with {column} {one['level'] or '(empty)'}, {one['share_ill']:.0%} "
        f"are ill, of all {share:.0%}."
    )


def share_of(found: Finding) -> str:
    """The share of the whole image's AUC above one half, for a table."""
    return "" if found.share is None else f"{min(max(found.share, 0), 1):.0%}{'+' * (found.share > 1)}"


def page(audit: Audit, cohort: Cohort | None, date: str | None = None) -> str:
    """The HTML page, of a ``date``; without pictures where ``cohort`` is None."""
    pictures, means = {}, []
    if cohort is not None:
        means = _means(cohort)
        # Text in the pixels may name the patient: such an image is on no page that goes around.
        hidden = {name for found in audit.findings for name in found.detail.get("files", ())}
        rows = {name: row for row, name in enumerate(cohort.table["image_id"]) if name not in hidden}
        told = [found for found in audit.findings if found.severity != "fine"]
        pictures = {found.probe.name: _pictures(found, cohort, rows) for found in told}
    draws = audit.settings.get("permutations")
    asked = [(f.p_value, f.p_holm) for f in audit.findings], [
        pair for one in audit.attributes for pair in (
            (one.visible.p_value if one.visible else None, one.p_visible),
            *((use.told.p_value, use.p_holm) for use in one.uses.values()),
        )
    ]  # fmt: skip
    floors = dict.fromkeys(words.p(least) for one in asked if (least := words.smallest_p(one, draws)))
    return environment().get_template("page.html").render(
        audit=audit, facts=audit.facts, floors=list(floors), date=date, words=words, verdicts=verdicts,
        means=means, pictures=pictures, side=_SIDE, anchor=_anchor, bar=_bar, p=words.p, sentence=sentence,
        share_of=share_of, worst=worst(audit), between=between_splits(audit),
        split_parts=[f.probe for f in audit.findings if f.probe.group == "split"],
    )  # fmt: skip


@cache
def environment() -> Environment:
    """Of the pages in ``data/``, in which every name from outside is escaped."""
    made = Environment(loader=PackageLoader("cxrlib.audit", "data"), autoescape=True)
    made.filters |= {"thousands": "{:,}".format, "one": "{:.1f}".format, "percent": "{:.1%}".format}
    made.filters["percents"] = lambda estimate: format(estimate, ".1%")
    made.globals["interval"] = lambda one: Estimate(one["value"], one["low"], one["high"])
    return made


def _as_dict(found: Finding) -> dict:
    probe = found.probe
    as_they_are = ("severity", "p_holm", "share", "images", "explained_by", "left", "detail", "reused")
    return {
        "name": probe.name, "title": probe.title, "group": probe.group, "sees_disease": probe.sees,
        "shown": probe.what, "found": sentence(found), "advice": probe.advice,
        "auc": None if found.auc is None else found.auc.as_dict(), "p": found.p_value,
        "accepted": None if found.accepted is None else asdict(found.accepted) | {"worse": found.worse},
        "telling": list(found.telling), **{name: getattr(found, name) for name in as_they_are},
    }  # fmt: skip


def _attribute(one: Asked) -> dict:
    return {
        "name": one.probe.name, "title": one.probe.title, "verdict": one.verdict, "useful": one.useful,
        "visible": one.seen, "p_visible": one.p_visible, "used_by": list(one.used_by),
        "detectability": None if one.visible is None else _told(one.visible),
        "use": {
            name: _told(use.told) | {
                "p_holm": use.p_holm, "auc_within_levels": use.auc_within, "levels": use.levels,
            } for name, use in one.uses.items()
        },
    }  # fmt: skip


def _told(one: Told) -> dict:
    return asdict(one) | {"concordance": one.concordance.as_dict()}


def _effect(one: Effect) -> dict:
    found = {name: value for name, value in vars(one).items() if not isinstance(value, Estimate)}
    measured = {name: value.as_dict() for name, value in vars(one).items() if isinstance(value, Estimate)}
    return found | measured | {"believed": one.believed}


def worst(audit: Audit) -> dict | None:
    """The level of an attribute at which a classifier is right least often, of those with 20 images."""
    return worst_group(
        {
            f"{name}, {one.probe.title}": use.levels
            for one in audit.attributes for name, use in one.uses.items()
        }
    )  # fmt: skip


def _pictures(found: Finding, cohort: Cohort, rows: dict[str, int]) -> list[tuple[str, list]]:
    """Rows of pictures as the probe sees them: a heading, and (data address, image id, label) of each.

    ``rows``: the cohort's rows by image id, of images that may be shown.
    """
    chosen = [rows[name] for name in found.telling if name in rows]
    if not chosen or found.probe.group == "table":  # columns are not in the pictures
        return []
    part, name = cohort.take(np.array(chosen)), found.probe.name
    if name in VIEWS:
        with suppress(DataError):  # none of these has lungs: the images themselves are shown
            part = shown(_with_masks(cohort, chosen) if name.startswith("lung") else part, name)
    table = cohort.table.iloc[chosen]
    addresses = [_png(image) for image in part.images]
    figures = list(zip(addresses, table["image_id"], table["label"], strict=True))
    if found.auc is None:
        return [("Copies beside each other.", figures)]
    first = found.telling[: (len(found.telling) + 1) // 2]  # some may be hidden
    half = sum(name in first for name in table["image_id"])
    ends = ("of this part", "of training") if found.probe.group == "split" else ("ill", "healthy")
    said = [f"Surest to be {kind} (and what the label says):" for kind in ends]
    if name == "kinds":
        said = [f"Of a kind with {many} ill (and what the label says):" for many in ("more", "fewer")]
    return list(zip(said, (figures[:half], figures[half:]), strict=True))


def _with_masks(cohort: Cohort, rows: list[int]) -> Cohort:
    from cxrlib.lungs.masks import segment  # from the cache: the audit has been there

    masked = cohort if cohort.lung_masks is not None else segment(cohort, progress=False)
    return masked.take(np.array(rows))


def _means(cohort: Cohort) -> list[tuple[str, str]]:
    """The mean image of each class, and where they differ: name, data address."""
    without, with_label, effect = class_means(cohort)
    difference = np.clip(127.5 + 127.5 * effect, 0, 255)
    means = {"mean of the healthy": without, "mean of the ill": with_label, "difference": difference}
    return [(name, _png(image.round().astype(np.uint8))) for name, image in means.items()]


def _bar(auc: Estimate) -> tuple[float, ...]:
    """Low, value and high on the way from ½ to 1, in per cent."""
    ends = (auc.value if x is None else x for x in (auc.low, auc.value, auc.high))
    return tuple(min(max(200 * (x - 0.5), 0), 100) for x in ends)


def _png(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(resize(np.asarray(image), _SIDE)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _anchor(found: Finding) -> str:
    return "f-" + "".join(c if c.isascii() and c.isalnum() else f"-{ord(c):x}-" for c in found.probe.name)
