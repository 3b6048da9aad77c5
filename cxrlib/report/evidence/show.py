"""Recorded evidence in a notebook, in one line."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import IPython.display

from cxrlib.evaluation.metrics import Estimate
from cxrlib.evaluation.results import Record, recorded
from cxrlib.report.evidence.registry import study_named

#: Untyped in IPython.
HTML: Any = IPython.display.HTML
Image: Any = IPython.display.Image
display: Any = IPython.display.display

MOST = 24
"""Rows of the folded table, where nobody says which."""


def evidence(place: str, keys: Sequence[str] | None = None) -> None:
    """Show what is recorded: the figure with its caption, and folded, its numbers and the command.

    - ``place``: ``<dataset>/<study>``, such as ``kermany/official_test``.
    - ``keys``: the numbers to show, by name; None for the first of them.
    - Raises ConfigError: there is no such study.
    - Raises DataError: it has no such number.
    """
    dataset, _, name = place.rpartition("/")
    answers = study_named(name).answers
    found = recorded(place)
    if found is None:
        display(HTML(f"<p>{html.escape(place)}: not recorded in this copy of the project.</p>"))
        return
    trained = found.provenance.get("recipe")
    caption = f"{answers} Recorded on {dataset}, preset {found.provenance.get('preset')}"
    caption += f"; {trained}." if trained else "."
    if found.image_path is not None:
        display(Image(found.image_path, metadata={"alt": caption}))
    display(HTML(f"<p>{html.escape(caption)}</p>\n{folded(found, keys)}"))


def folded(found: Record, keys: Sequence[str] | None = None) -> str:
    """HTML of a record's numbers with their intervals, and of the command that makes it again."""
    shown = list(found.numbers)[:MOST] if keys is None else list(keys)
    estimates = {key: found.estimate(key) for key in shown}
    ranges = any(one.seeds for one in estimates.values())  # chapter 03 says which of the two an interval is
    value = "value (95% interval, or range over seeds)" if ranges else "value (95% interval)"
    head = "".join(f"<th>{title}</th>" for title in ("number", value, "n", "seeds"))
    rows = "".join(_row(key, estimate) for key, estimate in estimates.items())
    left = len(found.numbers) - len(shown)
    more = f"<p>{left} more in <code>figures/…/{html.escape(found.path.name)}</code>.</p>" if left else ""
    command = html.escape(found.command or "no command was recorded")
    return (
        "<details><summary>The numbers, and the command that makes them again</summary>\n"
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>\n{more}"
        f"<p>Reproduce with: <code>{command}</code></p></details>"
    )


def _row(key: str, e: Estimate) -> str:
    whole = e.low is None and float(e.value).is_integer()
    cells = (
        f"{e.value:,.0f}" if whole else str(e),
        "" if e.n is None else f"{e.n:,}",
        "" if e.seeds is None else str(e.seeds),
    )
    return f"<tr><td><code>{html.escape(key)}</code></td>" + "".join(f"<td>{c}</td>" for c in cells) + "</tr>"
