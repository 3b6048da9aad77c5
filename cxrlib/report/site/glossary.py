"""Words that a chapter sets in italics, linked to the glossary where they first stand."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_PAGE = Path(__file__).parent / "pages" / "glossary.md"
_ITALIC = re.compile(r"(?<![*\w\\])\*([^*\n]+)\*(?![*\w])")
#: Spellings in the chapters that are not the glossary's own.
_ALSO = {
    "ap": "AP view", "pa": "PA view", "flip": "flip rate", "dice's coefficient": "Dice coefficient",
    "expected calibration error": "ECE", "positive predictive value": "precision",
    "calibrated": "calibration",
    "youden's": "Youden's index", "test": "test set", "validation": "validation set", "masking": "lung mask",
}  # fmt: skip


@cache
def terms() -> dict[str, str]:
    """The glossary's terms, by how a chapter may spell them in small letters."""
    body = _PAGE.read_text(encoding="utf-8").partition("```{glossary}")[2].partition("```")[0]
    listed = [line.strip() for line in body.splitlines() if line and line[0] not in " :"]
    return {_plain(term): term for term in listed} | _ALSO


def linked(text: str, seen: set[str]) -> str:
    """Markdown in which an italic word of the glossary is a link to it.

    ``seen``: terms that the chapter has linked already, which are left as they are; new ones are added.
    """

    def link(found: re.Match[str]) -> str:
        term = terms().get(_plain(found[1]))
        if term is None or term in seen:
            return found[0]
        seen.add(term)
        return f"{{term}}`{found[1]} <{term}>`"

    return "\n".join(line if line.startswith("#") else _ITALIC.sub(link, line) for line in text.split("\n"))


def _plain(word: str) -> str:
    small = word.strip().lower()
    return small[:-1] if small.endswith("s") and not small.endswith(("'s", "ss", "bias")) else small
