"""``make bench``: how fast, beside others, in one run on one machine; the rows are in ``rows``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.speed.rows import ROWS, Setting
from cxrlib.errors import ConfigError, DataError
from cxrlib.io.storage import atomic_path
from cxrlib.report.site.speed import read


def run(
    setting: Setting,
    only: Sequence[str] = (),
    out: Path | None = None,
    minutes: float = 12.0,
    told: Callable[[str], None] = lambda line: None,
) -> tuple[dict, list[str]]:
    """Measure the rows, write each as it is done, and return the record and what there was no time for.

    Parameters
    ----------
    only
        Names of :data:`ROWS`; none for all.
    out
        The JSON; rows in it that are not measured now stay.
    minutes
        No further row is begun after so long.
    told
        Called with the name of each row before it is measured.

    Raises
    ------
    ConfigError
        A row that does not exist, or fewer than one repetition.
    DataError
        ``data`` lacks the radiographs, or ``out`` holds something else.
    """
    unknown = [name for name in only if name not in ROWS]
    if unknown:
        raise ConfigError(
            f"There is no row called {unknown[0]!r}.", remedy=f"Use one or more of {', '.join(ROWS)}."
        )
    if setting.repeats < 1:
        raise ConfigError(f"{setting.repeats} repetitions measure nothing.", remedy="Give at least 1.")
    if setting.data is not None and not setting.data.is_dir():
        raise DataError(f"There is no folder {setting.data}.", remedy="Mend CXRLIB_DATA, or unset it.")
    import torch

    from cxrlib.evaluation.results import provenance

    record = read(out) if out is not None and out.is_file() else {"rows": []}
    started, left = time.monotonic(), []
    before = torch.get_num_threads()
    torch.set_num_threads(setting.threads)
    try:
        for name in only or ROWS:
            if time.monotonic() - started > 60 * minutes:
                left.append(name)
                continue
            told(name)
            for row in ROWS[name](setting):
                kept = [one for one in record["rows"] if one["name"] != row["name"]]
                made = provenance()
                row |= {
                    "threads": setting.threads,
                    "hardware": made["hardware"],
                    "commit": made["git_commit"],
                }
                record = {
                    "schema": 1,
                    "name": "results",
                    "command": "python -m benchmarks.speed --out benchmarks/results.json",
                    "rows": [*kept, row],
                    "provenance": {key: made[key] for key in ("git_commit", "versions", "hardware")},
                }
                if out is not None:
                    with atomic_path(out) as temporary:
                        temporary.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", "utf-8")
    finally:
        torch.set_num_threads(before)
    return record, left
