"""``cxr report``: run the notebooks with papermill, then render them and what they found as a site.

What a report's folder holds: ``index.html`` and the other pages; ``notebooks/``, as executed; ``artifacts/``,
what the notebooks recorded and stored; ``figures/``, a copy of the committed evidence; ``manifest.json``; and
``.build/``, from which a second call takes what has not changed.
"""

from __future__ import annotations

import shlex
import site
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cxrlib.batch import Batch, Outcome, find_notebooks
from cxrlib.bench_page import add_to_report
from cxrlib.errors import ConfigError
from cxrlib.site import build as site_build
from cxrlib.site.scoreboard import collect
from cxrlib.storage import cache_root

PRESETS = {
    "smoke": "seconds a notebook",
    "course": "about a minute a notebook",
    "full": "minutes to hours a notebook",
}


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
    notebooks_dir: str | Path | None = None,
    console: Console | None = None,
) -> int:
    """Run the notebooks and leave a site in ``out/index.html``.

    A notebook is not run again while its source, parameters, package and data stay as they were. After an
    interruption, the next call goes on from what was finished.

    Parameters
    ----------
    dataset
        A source that ``cxr data list`` shows.
    preset
        ``smoke``, ``course`` or ``full``: how much each notebook does.
    jobs
        Notebooks to run side by side, each with its share of the cores.
    out
        Folder of the report; made if it is not there.
    seed
        Of everything random.
    data_dir
        Folder of the images, for sources that need one.
    image_size
        Side of the square images in pixels; None for the notebooks' own default.
    only
        Names of notebooks, or their beginnings (``["03"]``). The others stay in the report where
        an earlier run of theirs is still valid.
    fresh
        Run again what has not changed.
    parameters
        More papermill parameters, for notebooks that know them.
    notebooks_dir
        Folder of the notebooks; None for the project's own.
    console
        Where progress goes; None for standard error.

    Returns
    -------
    int
        Exit status: 0, or 1 where a notebook did not finish. The site is there in both cases.

    Raises
    ------
    ConfigError
        An unknown preset or notebook, a folder that is not there, or ``out`` that holds something else.
    CxrError
        Sphinx could not render the site.
    """
    console = console or Console(stderr=True)
    started = time.monotonic()
    folder = _notebooks_dir(notebooks_dir)
    notebooks, selected = find_notebooks(folder, only)
    if preset not in PRESETS:
        raise ConfigError(f"There is no preset {preset!r}.", remedy=f"Use one of {', '.join(PRESETS)}.")
    if jobs < 1:
        raise ConfigError(f"{jobs} notebooks at a time is not possible.", remedy="Give 1 or more jobs.")
    data = _existing(data_dir)
    out = _report_dir(out)
    work = out / ".build"
    given = {
        "dataset": dataset,
        "data_dir": None if data is None else str(data),
        "image_size": image_size,
        "preset": preset,
        "seed": seed,
        "out_dir": str(out / "artifacts"),
    } | dict(parameters or {})
    given = {name: value for name, value in given.items() if not (name == "image_size" and value is None)}
    (out / "artifacts").mkdir(exist_ok=True)

    console.print(
        f"Report on {dataset}, preset {preset}: {len(selected)} notebooks, {jobs} at a time, "
        f"{PRESETS[preset]}; those that have not changed are taken from the last run.",
        highlight=False,
        soft_wrap=True,
    )
    batch = Batch(given, work / "runs", jobs=jobs, fresh=fresh)
    outcomes = _run(batch, notebooks, selected, console)

    console.print("Rendering the site (about 10 seconds) …", highlight=False)
    command = _command(given, parameters, jobs)
    render(out, folder, outcomes, {name: batch.executed(name) for name in outcomes}, given, command)

    stopped = [outcome for outcome in outcomes.values() if outcome.status != "done"]
    for outcome in stopped:
        error = outcome.error or {}
        console.print(f"[red]{outcome.name} {outcome.status}[/]: {error.get('name')}", highlight=False)
        console.print(f"  to run it alone: {_alone(command, outcome.name)}", highlight=False, soft_wrap=True)
    seconds = time.monotonic() - started
    console.print(f"Open {out / 'index.html'} ({seconds:.0f} s).", highlight=False, soft_wrap=True)
    return 1 if stopped else 0


def render(
    out: Path,
    notebooks_dir: Path,
    outcomes: Mapping[str, Outcome],
    executed: Mapping[str, Path],
    given: Mapping[str, object],
    command: str,
) -> None:
    """Render executed notebooks as the site in ``out``; the committed evidence lies beside ``notebooks_dir``.

    Parameters
    ----------
    outcomes, executed
        Notebook's name to how its run ended, and to the executed file.
    given
        The notebooks' parameters.
    command
        What makes this report again.
    """
    work = out / ".build"
    data = Path(str(given["data_dir"])) if given.get("data_dir") else None
    names = _stand_ins(out, notebooks_dir.parent, data)
    alone = {name: _alone(command, name) for name in outcomes}
    listed = site_build.write_sources(work / "source", out, executed, outcomes, names, alone)
    site_build.copy_evidence(notebooks_dir.parent / "figures", out, work / "source")
    recorded = [file.removeprefix("figures/") for outcome in outcomes.values() for file in outcome.files]
    evidence = collect(out / "artifacts" / "figures", "artifacts/figures", from_run=True, files=recorded)
    evidence += collect(out / "figures", "figures", from_run=False)
    manifest = _manifest(given, listed, outcomes, evidence, command)
    site_build.write_manifest(out / "manifest.json", manifest)
    site_build.write_pages(work / "source", listed, evidence, manifest)
    add_to_report(work / "source" / "numbers.md", notebooks_dir.parent, out)
    site_build.build(work / "source", out, work)


def _run(batch: Batch, notebooks, selected: set[str], console: Console) -> dict[str, Outcome]:
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


def _notebooks_dir(given: str | Path | None) -> Path:
    if given is not None:
        folder = Path(given).resolve()
    else:
        from cxrlib.results import project_root

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


def _existing(data_dir: str | Path | None) -> Path | None:
    if data_dir is None:
        return None
    folder = Path(data_dir).expanduser().resolve()
    if not folder.exists():
        raise ConfigError(
            f"There is no folder {folder}.", remedy="Give the folder of the images as --data-dir."
        )
    return folder


def _report_dir(out: str | Path) -> Path:
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
    names[str(Path(__file__).resolve().parent.parent)] = ""
    if data is not None:
        names[str(data)] = f"…/{data.name}"
    return {folder: name for folder, name in names.items() if len(Path(folder).parts) > 1}


def _command(given: Mapping[str, object], extra: Mapping[str, object] | None, jobs: int) -> str:
    """The ``cxr report`` call of this run, without this machine's folders."""
    words = ["cxr", "report", "--dataset", str(given["dataset"]), "--preset", str(given["preset"])]
    words += ["--seed", str(given["seed"])]
    if given.get("data_dir"):
        words += ["--data-dir", f"…/{Path(str(given['data_dir'])).name}"]
    if given.get("image_size"):
        words += ["--image-size", str(given["image_size"])]
    for name, value in (extra or {}).items():
        words += ["--set", f"{name}={value}"]
    return shlex.join(words + (["--jobs", str(jobs)] if jobs > 1 else []))


def _alone(command: str, name: str) -> str:
    return f"{command} --only {name}"


def _manifest(given, listed, outcomes: Mapping[str, Outcome], evidence, command: str) -> dict[str, object]:
    from cxrlib.results import provenance

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
