"""``cxr report``: run the notebooks with papermill, then render them and what they found as a site.

What a report's folder holds: ``index.html`` and the other pages; ``notebooks/``, as executed; ``artifacts/``,
what the notebooks recorded and stored; ``figures/``, a copy of the committed evidence; ``manifest.json``; and
``.build/``, from which a second call takes what has not changed. On request also ``comparison.json`` and
``report.html``, the whole site as one file.
"""

from __future__ import annotations

import re
import shlex
import site
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from cxrlib.errors import ConfigError, printable
from cxrlib.evaluation.results import project_root
from cxrlib.io.storage import cache_root, locked
from cxrlib.report.batch import Batch, Notebook, Outcome, find_notebooks
from cxrlib.report.growing import Growing
from cxrlib.report.site import build as site_build
from cxrlib.report.site.comparison import STATUSES, Comparison, compare, numbers_in, recorded_numbers
from cxrlib.report.site.docs import write_docs
from cxrlib.report.site.scoreboard import Evidence, collect
from cxrlib.report.site.slides import slides
from cxrlib.report.site.speed import add_peers, add_reliability, add_to_report

PRESETS = {
    "smoke": "seconds a notebook",
    "course": "about a minute a notebook",
    "full": "minutes to hours a notebook",
}
_APART = 90.0  # seconds between two renderings of a site that grows
OPTIONS = ("dataset", "data_dir", "image_size", "preset", "seed")
"""The parameters that have an option of their own."""


def run_report(
    dataset: str = "phantom",
    preset: str = "course",
    jobs: int = 1,
    out: str | Path = "report",
    seed: int = 0,
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    only: Iterable[str] | None = None,
    fresh: bool = False,
    parameters: Mapping[str, object] | None = None,
    compare_with: str | Path | None = None,
    single_file: bool = False,
    notebooks_dir: str | Path | None = None,
    console: Console | None = None,
) -> int:
    """Run the notebooks and leave a site in ``out/index.html``.

    A notebook is not run again while its source, parameters, package and data stay as they were. After an
    interruption, the next call goes on from what was finished. ``cxr report --help`` explains the options.

    - ``parameters``: more papermill parameters, for those notebooks that have them; before ``dataset`` and
      the like.
    - ``compare_with``: an earlier report, or a folder with ``figures/``: what moved since then is printed,
      written to ``comparison.json`` and shown on a page.
    - ``notebooks_dir``, ``console``: None for the project's own notebooks, and for standard error.
    - Returns: int, exit status: 0, or 1 where a notebook did not finish. The site is there in both cases.
    - Raises ConfigError: an unknown preset, notebook or parameter, a folder that is not there or, to compare
      with, without numbers, or ``out`` that holds something else.
    - Raises CxrError: sphinx could not render the site.
    """
    console = console or Console(stderr=True)
    started = time.monotonic()
    folder = notebooks_folder(notebooks_dir)
    notebooks, selected = find_notebooks(folder, only)
    extra = check_parameters(parameters or {}, notebooks)
    options: dict[str, object] = {"dataset": dataset, "data_dir": data_dir, "image_size": image_size}
    options |= {"preset": preset, "seed": seed} | {name: extra.pop(name) for name in OPTIONS if name in extra}
    if options["preset"] not in PRESETS:
        raise ConfigError(
            f"There is no preset {options['preset']!r}.", remedy=f"Use one of {', '.join(PRESETS)}."
        )
    if jobs < 1:
        raise ConfigError(f"{jobs} notebooks at a time is not possible.", remedy="Give 1 or more jobs.")
    if options["data_dir"] is not None:
        options["data_dir"] = str(_existing(Path(str(options["data_dir"]))))
    if options["image_size"] is None:
        del options["image_size"]
    # Before the run: it may be this very report as it was.
    old = None if compare_with is None else recorded_numbers(compare_with)
    out = report_dir(out)
    work = out / ".build"
    given = options | {"out_dir": str(out / "artifacts")}
    (out / "artifacts").mkdir(exist_ok=True)
    with locked(work / "report"):  # a second call of the same report waits, then finds nothing to do
        console.print(
            f"Report on {given['dataset']}, preset {given['preset']}: "
            f"{len(selected)} notebook{'s' * (len(selected) != 1)}, {jobs} at a time, "
            f"{PRESETS[str(given['preset'])]}; those that have not changed are taken from the last run.",
            highlight=False,
            soft_wrap=True,
        )
        command = command_line(given, extra, jobs, only)
        batch = Batch(given, work / "runs", jobs=jobs, fresh=fresh, extra=extra)
        paths = {notebook.name: notebook.path for notebook in notebooks}
        drawn = 0

        def so_far(known: dict[str, Outcome]) -> None:
            nonlocal drawn
            if any(outcome.status == "waiting" for outcome in known.values()):
                (work / site_build.MARKER).unlink(missing_ok=True)
                executed = {
                    n: paths[n] if o.status == "waiting" else batch.executed(n) for n, o in known.items()
                }
                reference = drawn > 0 or (out / "reference.html").is_file()  # it takes longest
                render(out, folder, known, executed, given, command, api=reference)
                drawn += 1
                if drawn == 1:
                    said = "the first page is there, and fills as chapters finish."
                    console.print(f"Open {out / 'index.html'}: {said}", highlight=False, soft_wrap=True)

        with Growing(so_far, seconds=_APART) as growing:
            batch.on_news = growing.tell
            outcomes = _run(batch, notebooks, selected, console)

        console.print("Rendering the site (about 10 seconds) …", highlight=False)
        comparison = None
        if old is not None and compare_with is not None:
            new = numbers_in(out / "artifacts" / "figures", _recorded_by(outcomes))
            comparison = compare(old, new, Path(compare_with).expanduser().resolve().name)
        executed = {name: batch.executed(name) for name in outcomes}
        render(out, folder, outcomes, executed, given, command, comparison, single_file=single_file)
        if comparison is not None:
            _tell(comparison, console)

        stopped = [outcome for outcome in outcomes.values() if outcome.status != "done"]
        for outcome in stopped:
            error = outcome.error or {}
            console.print(f"[red]{outcome.name} {outcome.status}[/]: {error.get('name')}", highlight=False)
            for line in str(error.get("message") or "").splitlines()[:12]:
                console.print(f"  {printable(line)}", highlight=False, soft_wrap=True, markup=False)
            again = _alone(command_line(given, extra, jobs, here=True), outcome.name)
            again = f"  to run it alone: {again} --out {shlex.quote(str(out))}"
            console.print(again, highlight=False, soft_wrap=True, markup=False)
        seconds = time.monotonic() - started
        console.print(f"Open {out / 'index.html'} ({seconds:.0f} s).", highlight=False, soft_wrap=True)
        if single_file:
            tell_single_file(out, console)
    return 1 if stopped else 0


def render(
    out: Path,
    notebooks_dir: Path,
    outcomes: Mapping[str, Outcome],
    executed: Mapping[str, Path],
    given: Mapping[str, object],
    command: str,
    comparison: Comparison | None = None,
    *,
    single_file: bool = False,
    api: bool = True,
) -> None:
    """Render executed notebooks as the site in ``out``; the committed evidence lies beside ``notebooks_dir``.

    - ``outcomes``, ``executed``: Notebook's name to how its run ended, and to the executed file.
    - ``given``: the notebooks' parameters.
    - ``command``: what makes this report again.
    - ``comparison``: with an earlier report.
    - ``single_file``: also write ``report.html``.
    - ``api``: also the package's reference, where the notebooks are the project's own.
    """
    work = out / ".build"
    data = Path(str(given["data_dir"])) if given.get("data_dir") else None
    names = _stand_ins(out, notebooks_dir.parent, data)
    whole = re.sub(r" --only \S+", "", command)
    alone = {name: _alone(whole, name) for name in outcomes}
    listed = site_build.write_sources(work / "source", out, executed, outcomes, names, alone)
    site_build.copy_evidence(notebooks_dir.parent / "figures", out, work / "source")
    recorded = _recorded_by(outcomes)
    evidence = collect(out / "artifacts" / "figures", "artifacts/figures", from_run=True, files=recorded)
    evidence += collect(out / "figures", "figures", from_run=False)
    manifest = _manifest(given, listed, outcomes, evidence, command)
    site_build.write_manifest(out / "manifest.json", manifest)
    root = project_root()
    own = root is not None and notebooks_dir == root / "notebooks"  # the reference is of these
    docs = write_docs(notebooks_dir.parent, work / "source", out, outcomes)
    site_build.write_pages(
        work / "source", listed, evidence, manifest, comparison,
        docs=docs, single_file=single_file, slides=own, api=own and api,
    )  # fmt: skip
    for add in (add_to_report, add_peers, add_reliability):
        add(work / "source" / "numbers.md", notebooks_dir.parent, out)
    site_build.write_text(out / "comparison.json", None if comparison is None else comparison.as_json())
    ended = all(outcome.status != "waiting" for outcome in outcomes.values())
    site_build.build(work / "source", out, work, single_file=single_file, whole=ended)
    site_build.write_text(out / site_build.SLIDES, slides(notebooks_dir.parent) if own else None)


def _run(batch: Batch, notebooks: list[Notebook], selected: set[str], console: Console) -> dict[str, Outcome]:
    """Run the batch with a bar for each notebook at work; where there is no terminal, a line for each end."""
    tasks = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        overall = progress.add_task("notebooks", total=len(selected))

        def start(name: str) -> None:
            (batch.state_dir.parent / site_build.MARKER).unlink(missing_ok=True)
            tasks[name] = progress.add_task(f"  {name}, cells", total=None)

        def cell(name: str, done: int, of: int) -> None:
            progress.update(tasks[name], completed=done, total=of)

        def end(outcome: Outcome) -> None:
            if outcome.name in tasks:
                progress.remove_task(tasks.pop(outcome.name))
            if outcome.name in selected:
                progress.advance(overall)
            how = "unchanged" if outcome.reused else f"{outcome.status} in {outcome.seconds:.0f} s"
            colour = "green" if outcome.status == "done" else "red"
            progress.console.print(f"  [{colour}]{outcome.name}[/] {how}", highlight=False)

        batch.on_start, batch.on_cell, batch.on_end = start, cell, end
        return batch.run(notebooks, selected)


def _recorded_by(outcomes: Mapping[str, Outcome]) -> list[str]:
    return [file.removeprefix("figures/") for outcome in outcomes.values() for file in outcome.files]


def _tell(comparison: Comparison, console: Console) -> None:
    """What moved, as a table."""
    table = Table(box=None, pad_edge=False)
    for title in ("what became of it", "number", comparison.name, "now"):
        table.add_column(title, overflow="fold")
    for change in comparison.notable:
        old, new = ("–" if side is None else site_build.shown(side) for side in (change.old, change.new))
        table.add_row(STATUSES[change.status], Text("/".join(change.key)), old, new)
    counts = ", ".join(f"{number} {STATUSES[status]}" for status, number in comparison.counts.items())
    console.print(f"Since {comparison.name}: {counts}.", highlight=False, soft_wrap=True, markup=False)
    if comparison.notable:
        console.print(table)


def tell_single_file(out: Path, console: Console) -> None:
    """Where the one file is, and how large."""
    path = out / site_build.SINGLE_FILE
    console.print(
        f"The same as one file: {path} ({path.stat().st_size / 1e6:.1f} MB).", highlight=False, soft_wrap=True
    )


def check_parameters(parameters: Mapping[str, object], notebooks: Iterable[Notebook]) -> dict[str, object]:
    """The parameters as they are, where each of them is one of a notebook; else a ConfigError names them."""
    declared = {name for notebook in notebooks for name in notebook.parameters} | set(OPTIONS)
    declared.discard("out_dir")  # what a report holds lies in the report
    unknown = [name for name in parameters if name not in declared]
    if unknown:
        raise ConfigError(
            "No notebook has a parameter that is called so.",
            offenders=unknown,
            remedy=f"Set some of {', '.join(sorted(declared))}.",
        )
    for name in ("seed", "image_size"):
        if not isinstance(parameters.get(name, 0), int):
            raise ConfigError(
                f"The {name} {parameters[name]!r} is no whole number.", remedy=f"Give one, as in {name}=1."
            )
    return dict(parameters)


def notebooks_folder(given: str | Path | None) -> Path:
    if given is not None:
        folder = Path(given).resolve()
    else:
        root = project_root()
        if root is None:
            raise ConfigError(
                "The notebooks are not part of the installed package.",
                remedy="Run from a checkout of the project, installed with: make install",
            )
        folder = root / "notebooks"
    if not folder.is_dir():
        raise ConfigError(f"There is no folder {folder}.", remedy="Name the folder of the notebooks.")
    return folder


def _existing(data_dir: Path) -> Path:
    folder = data_dir.expanduser().resolve()
    if not folder.exists():
        raise ConfigError(
            f"There is no folder {folder}.", remedy="Give the folder of the images as --data-dir."
        )
    return folder


def report_dir(out: str | Path) -> Path:
    """The report's folder, made if need be; never one with something else in it."""
    folder = Path(out).expanduser().resolve()
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / ".build").is_dir()):
        raise ConfigError(
            f"{folder} is not empty and not a report.", remedy="Give another --out, or empty that folder."
        )
    (folder / ".build").mkdir(parents=True, exist_ok=True)
    return folder


def _stand_ins(out: Path, root: Path, data: Path | None) -> dict[str, str]:
    """What stands for this machine's folders in the rendered notebooks."""
    names = {tempfile.gettempdir(): "…/tmp", str(Path.home()): "~", str(cache_root()): "…/cache"}
    names |= {sys.base_prefix: "…/python", sys.prefix: "…/env", str(root): "", str(out): f"…/{out.name}"}
    names |= {path: "…/site-packages" for path in site.getsitepackages()}
    names[str(Path(__file__).resolve().parents[2])] = ""
    if data is not None:
        names[str(data)] = f"…/{data.name}"
    return {folder: name for folder, name in names.items() if len(Path(folder).parts) > 1}


def command_line(
    given: Mapping[str, object],
    extra: Mapping[str, object] | None = None,
    jobs: int = 1,
    only: Iterable[str] | None = None,
    axes: Mapping[str, Iterable[object]] | None = None,
    *,
    here: bool = False,
) -> str:
    """The ``cxr report`` call of this run, without this machine's folders unless it is run ``here``."""
    words = ["cxr", "report"]
    for axis, values in (axes or {}).items():
        words += ["--grid", f"{axis}={','.join(map(str, values))}"]
    for name in ("dataset", "preset", "seed", "data_dir", "image_size"):
        value = given.get(name)
        if value is not None and name not in (axes or {}):
            shown = f"…/{Path(str(value)).name}" if name == "data_dir" and not here else str(value)
            words += [f"--{name.replace('_', '-')}", shown]
    for name, value in (extra or {}).items():
        words += ["--set", f"{name}={value}"]
    for name in only or ():
        words += ["--only", name]
    return shlex.join(words + (["--jobs", str(jobs)] if jobs > 1 else []))


def _alone(command: str, name: str) -> str:
    return f"{command} --only {name}"


def _manifest(
    given: Mapping[str, Any], listed: list[site_build.Chapter], outcomes: Mapping[str, Outcome],
    evidence: list[Evidence], command: str,
) -> dict[str, object]:  # fmt: skip
    from cxrlib.evaluation.results import provenance

    made = provenance(dataset=str(given["dataset"]), preset=str(given["preset"]), seed=int(given["seed"]))
    of_run = [item.record.provenance.get("hardware") for item in evidence if item.from_run]
    return {
        "schema": 1,
        "dataset": given["dataset"],
        "data_dir": Path(str(given["data_dir"])).name if given.get("data_dir") else None,
        "preset": given["preset"],
        "seed": given["seed"],
        "image_size": given.get("image_size"),
        "command": command,
        "git_commit": made["git_commit"],
        "versions": made["versions"],
        # The notebooks imported torch and know the accelerator; this process did not.
        "hardware": next(filter(None, of_run), made["hardware"]),
        "seconds": round(sum(outcome.seconds for outcome in outcomes.values()), 1),
        "notebooks": [
            {
                "name": chapter.name,
                "title": chapter.title,
                "status": chapter.status,
                "seconds": chapter.seconds,
                "error": outcomes[chapter.name].error,
            }
            for chapter in listed
        ],
    }
