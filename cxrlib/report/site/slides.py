"""Ten slides for an instructor in one HTML file, offline: ``slides.toml`` with its figures inside."""

from __future__ import annotations

import base64
from pathlib import Path

from cxrlib.report.site.build import fill
from cxrlib.report.site.first_page import said, table
from cxrlib.report.site.offline import SEALED


def slides(root: Path) -> str:
    """The page; ``root`` is the project, whose ``figures/`` hold the pictures."""
    listed = table("slides")["slide"]
    pictures = [(root / "figures" / slide["figure"]).read_bytes() for slide in listed]
    data = [f"data:image/png;base64,{base64.b64encode(picture).decode()}" for picture in pictures]
    return fill("slides.html.j2", slides=list(zip(listed, data, strict=True)), policy=SEALED, said=said)
