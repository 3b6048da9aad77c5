"""An audit as JUnit XML, which build servers show: a test case a check, a failure where one is severe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

from cxrlib.audit.page import sentence
from cxrlib.audit.run import Audit
from cxrlib.errors import printable
from cxrlib.io.storage import atomic_path

_NO_XML = re.compile(r"[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff]")


def junit(audits: Mapping[str, Audit], seconds: float = 0.0) -> str:
    """XML of audits by name: a suite each.

    A failure is a severe finding that is not accepted, or an accepted one that got worse; what is accepted is
    skipped, with its reason. Names from outside are escaped; what XML cannot hold becomes text (``\\x1b``).
    """
    root = ET.Element("testsuites", name="cxr audit", time=f"{seconds:.1f}")
    for name, audit in audits.items():
        suite = ET.SubElement(root, "testsuite", name=_text(name))
        counts = {"tests": 0, "failures": 0, "skipped": 0, "errors": 0}
        for found in audit.findings:
            probe = found.probe
            case = ET.SubElement(
                suite, "testcase", classname=_text(f"{name}.{probe.group}"), name=_text(probe.name), time="0"
            )
            counts["tests"] += 1
            said = f"{probe.title}: {found.severity}. {sentence(found)}"
            if found.standing == "severe":
                counts["failures"] += 1
                why = (
                    f" Accepted up to {found.accepted.ceiling:g}, and worse since." if found.accepted else ""
                )
                failure = ET.SubElement(case, "failure", type="severe", message=_text(said + why))
                failure.text = _text(f"{probe.what} {said}{why} What to do: {probe.advice}")
            elif found.accepted and found.standing == "accepted":
                counts["skipped"] += 1
                ET.SubElement(case, "skipped", message=_text(f"Accepted: {found.accepted.reason}"))
            elif found.severity != "fine":
                ET.SubElement(case, "system-out").text = _text(said)
        suite.attrib.update({key: str(value) for key, value in counts.items()})
    for key in ("tests", "failures", "skipped", "errors"):
        root.set(key, str(sum(int(suite.attrib[key]) for suite in root)))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def write_junit(audits: Mapping[str, Audit], path: str | Path, seconds: float = 0.0) -> None:
    """Write :func:`junit` as UTF-8; the file appears whole or not at all."""
    body = '<?xml version="1.0" encoding="UTF-8"?>\n' + junit(audits, seconds)
    with atomic_path(path) as temporary:
        temporary.write_text(body, encoding="utf-8")


def _text(value: str) -> str:
    return _NO_XML.sub(lambda found: repr(found[0])[1:-1], printable(value))
