"""An audit on paper: ``audit.json`` for programs, and one HTML file with the evidence for people.

The page asks for nothing from anywhere: pictures are in it, styles too, and a content security policy forbids
the rest. Names of files, columns and their values come from strangers and are escaped.
"""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cxrlib.audit.probes import Finding
from cxrlib.audit.rules import PROBES, SEVERITIES
from cxrlib.audit.run import SCHEMA, Audit
from cxrlib.cohort import Cohort
from cxrlib.errors import DataError
from cxrlib.evaluation.eda_images import class_means
from cxrlib.evaluation.metrics import Estimate
from cxrlib.evaluation.results import SCHEMA as RESULTS
from cxrlib.evaluation.results import provenance
from cxrlib.images.regions import VIEWS, shown
from cxrlib.io.decode import resize
from cxrlib.io.storage import atomic_path

_SIDE = 144  # of a picture on the page
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_MEANING = {
    "severe": "predicts the label without the disease",
    "warning": "look into it",
    "note": "expected, or too little to matter",
    "fine": "not established",
}

_RULES = (
    "“Ill” is whoever has the label. All this is meant for labels of the lungs: where the label is a "
    "fracture or a device, it may lie in what is shown.",
    "Each AUC is that of a ridge classifier (a linear one) on patients held out of its training, in "
    "five folds. The p-value permutes labels over patients and fits anew, and is corrected by Holm over "
    "all checks: it decides what is established. The interval resamples patients and leaves the fits as "
    "they are, so for weak probes it is too narrow; where nothing can be learnt, a held-out AUC "
    "scatters on both sides of one half. “Of the whole” compares AUCs above one half; if the whole "
    "image itself reaches little, every share is large.",
    "<b>Severe</b>: corrected p below 0.05, lower limit at least 0.60, a quarter of the whole image's "
    "AUC above one half, and no disease of the lungs can be in what was shown. <b>Warning</b>: "
    "corrected p below 0.05 and an AUC of at least 0.55; or severe but for another explanation, such as "
    "age, a column that all but equals the label, a stronger finding, or a source that pixels do not "
    "show. What may show disease is a <b>note</b>. Copies and leaks are severe from one image in a "
    "hundred on.",
)


def numbers(audit: Audit) -> dict[str, Estimate]:
    """``<probe>.auc``, ``.p``, ``.p_holm``, ``.share``, ``.images`` and ``.severe`` (0 or 1), where they
    apply."""
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


def content(audit: Audit, **made_from: Any) -> dict:
    """What ``audit.json`` holds; ``made_from``: of :func:`cxrlib.evaluation.results.provenance`.

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
        "limits": list(audit.limits),
        "settings": audit.settings,
        "provenance": provenance(
            dataset=audit.facts["name"], content_hash=audit.facts["content_hash"],
            seed=audit.settings["seed"], **made_from,
        ),
    }  # fmt: skip


def write(
    audit: Audit, cohort: Cohort, out: str | Path, *, pictures: bool = True, **made_from: Any
) -> tuple[Path, Path]:
    """Write ``audit.json`` and ``audit.html`` into ``out``; each appears whole or not at all."""
    out = Path(out)
    text = json.dumps(content(audit, **made_from), indent=1, ensure_ascii=False, allow_nan=False, default=str)
    bodies = {"audit.json": text + "\n", "audit.html": page(audit, cohort if pictures else None)}
    for name, body in bodies.items():
        with atomic_path(out / name) as temporary:
            temporary.write_text(body, encoding="utf-8", errors="replace")
    return out / "audit.json", out / "audit.html"


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
        return f"{found.images} images in {detail['pairs']} pairs, {detail['exact']} of them identical."
    said = f"A classifier that saw nothing else reaches an AUC of {found.auc} on patients new to it"
    if found.share is not None and found.probe.name != "whole":
        part = f"{max(found.share, 0):.0%} of" if found.share < 1 else "no less than"
        said += f", {part} what the whole image gives it above one half"
    said += f". Corrected p {_p(found.p_holm)}."
    if found.detail.get("disguise"):
        said += (
            " It is the label in other words, or a perfect shortcut. The columns taken together leave it out."
        )
    if found.explained_by is not None:
        title = PROBES[found.explained_by].title
        said += f" Among images alike in “{title}” an AUC of {found.left:.2f} is left: "
        said += "it shows much the same thing."
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


def _most_uneven(found: Finding) -> str:
    """The level of a column in which the label is most unevenly frequent, as a sentence."""
    uneven = []
    for column, levels in found.detail.get("levels", {}).items():
        total = sum(one["images"] for one in levels)
        share = sum(one["images"] * one["share_ill"] for one in levels) / total
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


def page(audit: Audit, cohort: Cohort | None) -> str:
    """The HTML page; without pictures where ``cohort`` is None."""
    facts = audit.facts
    # Text in the pixels may name the patient: such an image is on no page that goes around.
    named = {name for found in audit.findings for name in found.detail.get("files", ())}
    pictures = None if cohort is None else _Pictures(cohort, named)
    splits = "".join(f", {name} {count:,}" for name, count in facts["splits"].items())
    parts = [
        f"<h1>Audit of {_escaped(facts['name'])}</h1>",
        f'<p class="verdict {audit.verdict}"><b>{audit.verdict}</b> '
        f"{len(audit.severe)} of {len(audit.findings)} checks found a severe shortcut or leak.</p>",
        f"<p>{facts['images']:,} images of {facts['patients']:,} patients at {facts['image_size']} pixels, "
        f"{facts['ill']:,} ill{_escaped(splits)}. Not for clinical use.</p>",
        _scorecard(audit),
        "" if cohort is None else _means(cohort),
        *(_section(found, pictures) for found in audit.findings if found.severity != "fine"),
        "<h2>What was not checked</h2><ul>",
        *(f"<li>{_escaped(limit)}</li>" for limit in audit.limits),
        *(f"<li>Left out: {_escaped(one)}</li>" for one in facts["skipped"][:50]),
        "<li>A shortcut that this audit has no probe for, that is weaker than it can see with so many "
        "images, or that runs through the lungs themselves. A clean audit is no proof of a clean data "
        "set.</li></ul>",
        "<h2>How findings are judged</h2>",
        *(f"<p>{paragraph}</p>" for paragraph in _RULES),
    ]
    title = f"Audit of {_escaped(facts['name'])}"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )


def _as_dict(found: Finding) -> dict:
    probe = found.probe
    return {
        "name": probe.name,
        "title": probe.title,
        "group": probe.group,
        "severity": found.severity,
        "auc": None if found.auc is None else found.auc.as_dict(),
        "p": found.p_value,
        "p_holm": found.p_holm,
        "share": found.share,
        "images": found.images,
        "sees_disease": probe.sees,
        "shown": probe.what,
        "found": sentence(found),
        "advice": probe.advice,
        "explained_by": found.explained_by,
        "left": found.left,
        "detail": found.detail,
        "telling": list(found.telling),
        "reused": found.reused,
    }


class _Pictures:
    """Pictures of rows by image id, as a probe sees them, as data addresses."""

    def __init__(self, cohort: Cohort, hidden: set[str]):
        self.cohort = cohort
        names = enumerate(cohort.table["image_id"])
        self.rows = {name: row for row, name in names if name not in hidden}

    def of(self, found: Finding) -> str:
        rows = [self.rows[name] for name in found.telling if name in self.rows]
        if not rows or found.probe.group == "table":  # columns are not in the pictures
            return ""
        part = self.cohort.take(np.array(rows))
        name = found.probe.name
        if name in VIEWS:
            with suppress(DataError):  # none of these has lungs: the images themselves are shown
                part = shown(_with_masks(self.cohort, rows) if name.startswith("lung") else part, name)
        figures = []
        for image, row in zip(part.images, rows, strict=True):
            image_id, label = (self.cohort.table[column].iloc[row] for column in ("image_id", "label"))
            kind, said = ("with", "ill") if label else ("without", "healthy")
            figures.append(
                f'<figure class="{kind}"><img src="{_png(image)}" width="{_SIDE}" height="{_SIDE}" '
                f'alt="{_escaped(image_id)}, {said}"><figcaption>{said}<br>'
                f"{_escaped(image_id)}</figcaption></figure>"
            )
        if found.auc is None:
            return f'<p class="small">Copies beside each other.</p><div class="row">{"".join(figures)}</div>'
        half = (len(figures) + 1) // 2
        return "".join(
            f'<p class="small">Surest to be {kind} (and what the label says):</p>'
            f'<div class="row">{"".join(part)}</div>'
            for kind, part in (("ill", figures[:half]), ("healthy", figures[half:]))
        )


def _with_masks(cohort: Cohort, rows: list[int]) -> Cohort:
    from cxrlib.lungs.masks import segment  # from the cache: the audit has been there

    masked = cohort if cohort.lung_masks is not None else segment(cohort, progress=False)
    return masked.take(np.array(rows))


def _means(cohort: Cohort) -> str:
    """The mean image of each class, and where they differ."""
    without, with_label, effect = class_means(cohort)
    difference = np.clip(127.5 + 127.5 * effect, 0, 255)
    means = [("mean of the healthy", without), ("mean of the ill", with_label), ("difference", difference)]
    figures = "".join(
        f'<figure><img src="{_png(image.round().astype(np.uint8))}" width="{_SIDE}" height="{_SIDE}" '
        f'alt="{name}"><figcaption>{name}</figcaption></figure>'
        for name, image in means
    )
    return (
        f'<h2>Where the classes differ</h2><div class="row">{figures}</div><p class="small">The difference '
        "is in units of each pixel's standard deviation: black and white are one, grey is none. Sharp "
        "shapes outside the lungs are no disease.</p>"
    )


def _scorecard(audit: Audit) -> str:
    rows = []
    for found in audit.findings:
        link = f'<a href="#{_anchor(found)}">{_escaped(found.probe.title)}</a>'
        title = link if found.severity != "fine" else _escaped(found.probe.title)
        if found.auc is None:
            cells = f"<td>{found.images:,} images</td><td></td><td></td><td></td>"
        else:
            values = (found.auc, _bar(found.auc, found.severity), share_of(found), _p(found.p_holm))
            cells = "".join(f"<td>{value}</td>" for value in values)
        rows.append(
            f'<tr><td><span class="{found.severity}">{found.severity}</span></td><td>{title}</td>{cells}</tr>'
        )
    head = "".join(f"<th>{t}</th>" for t in ("", "shown", "AUC", "0.5 to 1", "of the whole", "p"))
    legend = "; ".join(f"<b>{severity}</b>: {_MEANING[severity]}" for severity in SEVERITIES)
    return (
        f'<h2>Scorecard</h2><table class="card"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
        f'<p class="small">{legend}.</p>'
    )


def _section(found: Finding, pictures: _Pictures | None) -> str:
    probe = found.probe
    advice = (
        ""
        if found.severity == "note" and probe.sees == "yes"
        else f"<p><b>What to do.</b> {_escaped(probe.advice)}</p>"
    )
    tables = "".join(_levels(column, levels) for column, levels in found.detail.get("levels", {}).items())
    files = found.detail.get("files", ())
    shown = (files or found.detail.get("examples", ()))[:10]
    listed = "".join(f"<li>{_escaped(', '.join(e) if isinstance(e, list) else e)}</li>" for e in shown)
    if len(files) > 10:
        listed += f"<li>… and {len(files) - 10} more, in audit.json</li>"
    opened = " open" if found.severity in ("severe", "warning") else ""
    return (
        f'<details id="{_anchor(found)}"{opened}><summary>'
        f'<span class="{found.severity}">{found.severity}</span> '
        f"<b>{_escaped(probe.title)}</b></summary><p><b>Shown.</b> {_escaped(probe.what)}</p>"
        f"<p><b>Found.</b> {_escaped(sentence(found))}</p>{advice}{tables}"
        f"{f'<ul>{listed}</ul>' if listed else ''}{pictures.of(found) if pictures else ''}</details>"
    )


def _levels(column: str, levels: list[Mapping]) -> str:
    rows = "".join(
        f"<tr><td>{_escaped(one['level'])}</td><td>{one['images']:,}</td><td>{one['share_ill']:.1%}</td></tr>"
        for one in levels
    )
    head = f"<th>{_escaped(column)}</th><th>images</th><th>ill</th>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _bar(auc: Estimate, severity: str) -> str:
    """The interval from ½ to 1 as a bar, and the AUC as a tick in it."""
    ends = (auc.value if x is None else x for x in (auc.low, auc.value, auc.high))
    low, value, high = (min(max(200 * (x - 0.5), 0), 100) for x in ends)
    return (
        f'<div class="bar"><i class="{severity}" '
        f'style="left:{low:.1f}%;width:{max(high - low, 1):.1f}%"></i>'
        f'<u style="left:{value:.1f}%"></u></div>'
    )


def _png(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(resize(np.asarray(image), _SIDE)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _anchor(found: Finding) -> str:
    return "f-" + "".join(c if c.isascii() and c.isalnum() else f"-{ord(c):x}-" for c in found.probe.name)


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def _escaped(value: object) -> str:
    return html.escape(str(value), quote=True)


_STYLE = """
body{margin:0;background:#fff;color:#222;font:16px/1.5 system-ui,sans-serif}
main{max-width:60rem;margin:auto;padding:1.5rem}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2rem}
table{border-collapse:collapse;margin:.6rem 0;font-variant-numeric:tabular-nums;display:block;overflow-x:auto}
th,td{text-align:left;padding:.2rem .8rem .2rem 0;border-bottom:1px solid #e4e4e4;font-weight:400}
th{color:#595959;font-size:.85rem}
span.severe,span.warning,span.note,span.fine{display:inline-block;min-width:4.6rem;padding:0
.4rem;border-radius:.2rem}
span.severe{background:#b34700;color:#fff}span.warning{background:#f5c04a}span.note{background:#d6e8f5}
span.fine{background:#eee} .verdict{padding:.6rem 1rem;border-left:.5rem solid #767676;background:#f6f6f6}
.verdict.severe{border-color:#b34700}.verdict.warning{border-color:#e69f00}
.bar{position:relative;width:9rem;height:.8rem;background:#eee}
.bar i{position:absolute;top:0;bottom:0;background:#56b4e9}.bar i.severe{background:#d55e00}
.bar i.warning{background:#e69f00}.bar u{position:absolute;top:-2px;bottom:-2px;width:2px;background:#222}
details{border:1px solid #ddd;border-radius:.3rem;padding:.4rem 1rem;margin:.8rem 0}
summary{cursor:pointer}
.row{display:flex;flex-wrap:wrap;gap:.6rem}
figure{margin:0;width:144px}figure img{display:block;background:#000}
figcaption{margin-top:6px;font-size:.72rem;line-height:1.25;overflow-wrap:anywhere;color:#444}
figure.with img{outline:3px solid #d55e00}figure.without img{outline:3px solid #0072b2}
@media(max-width:40rem){.card td:nth-child(4),.card th:nth-child(4){display:none}.card td{font-size:.85rem}
main{padding:.8rem}th,td{padding-right:.4rem}}
.small{font-size:.85rem;color:#595959}
""".strip()
