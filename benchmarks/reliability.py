"""Where the campaigns of this folder write what they measured: ``benchmarks/reliability.json``.

Each campaign (``fuzz.py``, ``faults.py``, ``load.py``, ``mutation.py``) replaces its own rows, whose names
begin with its own, and leaves the others'.
"""

from __future__ import annotations

import json
from pathlib import Path

from cxrlib.evaluation.results import provenance
from cxrlib.io.storage import atomic_path

OUT = Path(__file__).with_name("reliability.json")


def record(campaign: str, rows: list[dict], command: str, seconds: float, out: Path = OUT) -> None:
    """Write ``rows`` of one campaign, and what is needed to make them again.

    A row has name (``fuzz.png``), what (a sentence's worth), tried, failed (0 is aimed at), and where they
    apply: value, unit, target, at_least (whether the target is the least or the most), seed, note.
    """
    known = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {"rows": [], "campaigns": {}}
    wrong = [row["name"] for row in rows if row["name"].split(".")[0] != campaign]
    if wrong:
        raise ValueError(f"rows {wrong} are not named after {campaign}")
    kept = [row for row in known["rows"] if row["name"].split(".")[0] != campaign]
    facts = {
        "schema": 1,
        "name": "reliability",
        "rows": sorted([*kept, *rows], key=lambda row: row["name"]),
        "campaigns": {
            **known["campaigns"],
            campaign: provenance(command=command, seconds=seconds),
        },
    }
    with atomic_path(out) as temporary:
        temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
