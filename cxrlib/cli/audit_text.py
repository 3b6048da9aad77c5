"""An audit in the terminal: what was found, worst first, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cxrlib.cli.console import echo, print_table
from cxrlib.errors import printable

if TYPE_CHECKING:
    from rich.console import Console

    from cxrlib.audit.run import Audit
    from cxrlib.audit.several import Several

_COLOURS = {"severe": "bold white on red", "warning": "black on yellow", "note": "cyan", "fine": "dim"}


def print_audit(found: Audit, html: Path) -> None:
    """Every check, what the worst say, the attributes, and the verdict."""
    from rich.console import Console
    from rich.markup import escape as escaped
    from rich.table import Table

    from cxrlib.audit.models import doubtful
    from cxrlib.audit.page import sentence, share_of
    from cxrlib.audit.words import first, read, shown, why_warning

    def escape(text: str) -> str:
        return escaped(printable(text))

    console = Console(soft_wrap=False, emoji=False)
    facts = found.facts
    console.print(
        f"{escape(facts['name'])}: {facts['images']:,} images of {facts['patients']:,} patients, "
        f"{facts['ill']:,} ill"
    )
    for said in (table_read := read(facts)):
        console.print(f"[dim]{escape(said)}[/]")
    for number, said in enumerate(first(found)):
        console.print(escape(said), style="" if number else "bold", highlight=False)
    table = Table("", "shown", "AUC (95%)", "of the whole", "p", box=None, pad_edge=False)
    for one in found.findings:
        style = _COLOURS.get(one.standing, "green")
        severity = f"[{style}]{one.standing}[/]"
        if one.auc is None or one.p_holm is None:  # a count
            table.add_row(severity, escape(one.probe.title), f"{one.images:,} images", "", "")
            continue
        p = "< 0.001" if one.p_holm < 0.001 else f"{one.p_holm:.3f}"
        table.add_row(severity, escape(one.probe.title), shown(one.auc), share_of(one), p)
    console.print(table)
    for one in found.findings:
        if one.standing in ("severe", "warning"):
            console.print(f"\n[{_COLOURS[one.standing]}]{one.standing}[/] [bold]{escape(one.probe.title)}[/]")
            console.print(escape(f"{sentence(one)} {why_warning(one)}"))
            if one.accepted:
                console.print(f"Accepted up to {one.accepted.ceiling:g}, and worse since.")
            console.print(f"What to do: {escape(one.probe.advice)}")
        elif one.accepted and one.standing == "accepted":
            console.print(f"\n[green]accepted[/] [bold]{escape(one.probe.title)}[/]")
            console.print(escape(f"{one.accepted.reason} (Up to {one.accepted.ceiling:g}.)"))
    _print_attributes(found, console, weak := doubtful(found.classifiers, found["whole"].auc))
    for judge, doubted in (found.doubts.judges or {}).items():
        console.print(escape(f"Labels to look at again: {judge} doubts {doubted:,}; the page lists them."))
    for limit in found.limits:
        if limit not in (*weak.values(), *table_read):
            console.print(f"[dim]Not checked: {escape(limit)}[/]")
    typer.echo(f"\nVerdict: {found.verdict}. The evidence: {html}")


def print_doubtful(several: Several) -> None:
    """Warnings, after all else, of classifiers that are reversed or were not shown to tell the label."""
    from cxrlib.audit.models import doubtful

    for name, found in several.audits.items():
        for said in doubtful(found.classifiers, found["whole"].auc).values():
            echo(f"cxr: warning: {f'{name}: ' if len(several.audits) > 1 else ''}{said}", err=True)


def _print_attributes(found: Audit, console: Console, weak: Mapping[str, str]) -> None:
    """What could be learnt, what is used, and what changing the pictures does."""
    from rich.markup import escape
    from rich.table import Table

    from cxrlib.audit.words import effect_word, fed, good_at, verdict_on

    names = [escape(printable(name)) for name in found.classifiers]
    for name, measured in found.classifiers.items():
        console.print(f"\n[bold]{escape(printable(name))}[/]", highlight=False)
        console.print(f"{good_at(measured)}.", highlight=False)
        if "fed" in measured:
            console.print(f"It was fed {fed(measured['fed'])}.", highlight=False)
        for said in verdict_on(found, name):
            style = _COLOURS["severe"] if said == weak.get(name) else ""
            console.print(escape(printable(said)), style=style, highlight=False)
    if found.classifiers:
        console.print("“severe” and “warning” above are about the data, and not about a classifier.")
    table = Table(
        "", "attribute", "pixels show it", *(f"followed by {n}" for n in names), box=None, pad_edge=False
    )
    for one in found.attributes:
        if one.verdict != "harmless":
            seen = "in the picture" if one.visible is None else str(one.visible.concordance)
            followed = [
                f"{'' if name in one.used_by else 'not shown, '}{use.told.concordance}, p {use.p_holm:.3f}"
                for name, use in one.uses.items()
            ]
            table.add_row(one.verdict, escape(printable(one.probe.title)), seen, *followed)
    if table.row_count:
        console.print("\nWith the label held fixed (0.5 is nothing):", highlight=False)
        console.print(table)
    if not any(one.verdict in ("used", "exploitable") for one in found.attributes):
        console.print(f"\nNothing was found to be {'used or ' if names else ''}exploitable.")
    if found.effects:
        table = Table(
            "", "change", "calls that flip", "by a control", "AUC after it", box=None, pad_edge=False
        )
        for effect in found.effects:
            flips = ["" if e is None else format(e, ".0%") for e in (effect.flips, effect.control_flips)]
            word = effect_word(effect)
            table.add_row(
                word if word in ("answers", "still tells") else "", effect.title, *flips, str(effect.auc)
            )
        console.print("\nThe classifier on changed pictures:", highlight=False)
        console.print(table)
        console.print(
            "A control changes as much and brings nothing of the kind: black is foreign to a network by "
            "itself. answers: more calls flip than by the control. still tells: the AUC's interval is above "
            "0.5.",
            highlight=False,
        )


def print_several(several: Several, html: Path) -> None:
    """A line a finding: its verdict, and what is severe."""
    rows = [
        [
            found.verdict, name, f"{found.facts['images']:,}", f"{found.facts['ill']:,}",
            str(found["whole"].auc),
            ", ".join(found[one].probe.title for one in found.severe),
        ]
        for name, found in several.audits.items()
    ]  # fmt: skip
    print_table(["", "finding", "images", "ill", "whole image", "severe"], rows, _COLOURS)
    for limit in several.limits:
        echo(f"Not checked: {limit}")
    typer.echo(f"\nVerdict: {several.verdict}. The evidence: {html}")
