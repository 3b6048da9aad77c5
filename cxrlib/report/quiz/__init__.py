"""One question a chapter, answered at once: in JupyterLab, on the site, on paper without a script or network.

Each answer is a ``<details>`` whose feedback opens below it, so that a keyboard, a screen reader and a
notebook that was not run can use it. The questions lie beside this file, as ``NN_name.toml``.
"""

from __future__ import annotations

import hashlib
import html
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import IPython.display

from cxrlib.errors import ConfigError

HERE = Path(__file__).parent
#: Untyped in IPython.
HTML: Any = IPython.display.HTML
display: Any = IPython.display.display
_MARK = re.compile(r"\s*<!--.*?-->")
_STYLE = (
    ".quiz details{border:1px solid currentColor;border-radius:.25rem;margin:.4rem 0;padding:.4rem .75rem}"
    ".quiz summary{cursor:pointer}.quiz details p{margin:.5rem 0 0}"
)


@dataclass(frozen=True)
class Answer:
    """One of those to choose from, and what is said to who chooses it."""

    text: str
    why: str
    right: bool = False


@dataclass(frozen=True)
class Question:
    """``record``: where the number in the right answer stands, ``dataset/study:name`` or ``…:name:.1%``."""

    question: str
    answers: tuple[Answer, ...]
    record: str | None = None


def questions() -> dict[str, Question]:
    """Every chapter's question, by the chapter's name.

    - Raises ConfigError: a file that is no question.
    """
    found = {}
    for path in sorted(HERE.glob("*.toml")):
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
            answers = tuple(Answer(**answer) for answer in content.pop("answers"))
            found[path.stem] = Question(**content, answers=answers)
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(
                f"{path} is no question: {error}.", remedy="Compare it with another."
            ) from error
    return found


def ask(chapter: str) -> None:
    """Show a chapter's question, such as ``06_overfitting``; its answers come in an order of their own.

    - Raises ConfigError: there is no question for this chapter.
    """
    known = questions()
    if chapter not in known:
        raise ConfigError(f"There is no question {chapter!r}.", remedy=f"Use {', '.join(known)}.")
    one = known[chapter]
    mixed = sorted(one.answers, key=lambda answer: hashlib.sha256(answer.text.encode()).digest())
    shown = "".join(
        f'<details name="quiz-{chapter}"><summary>{_text(answer.text)}</summary>'
        f"<p><strong>{'✓ Right.' if answer.right else '✗ Not so.'}</strong> {_text(answer.why)}</p></details>"
        for answer in mixed
    )
    display(
        HTML(
            f'<style type="text/css">{_STYLE}</style><div class="quiz" role="group" '
            f'aria-labelledby="quiz-{chapter}"><p id="quiz-{chapter}"><strong>{_text(one.question)}</strong> '
            f"Open the answer that you choose.</p>{shown}</div>"
        )
    )


def _text(text: str) -> str:
    return html.escape(_MARK.sub("", text).strip())
