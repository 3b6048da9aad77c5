"""A Sphinx extension that draws formulas at build time: pages then need no script and no network.

Matplotlib's mathtext turns TeX into outlines, which become SVG in the text's own colour; the TeX source is
the picture's alternative text. Rows of ``aligned`` and the like are drawn one below the other. What mathtext
cannot draw stays as its source, with a warning.
"""

from __future__ import annotations

import html
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from docutils.nodes import Element, SkipNode  # type: ignore[import-untyped]
from sphinx.util import logging

if TYPE_CHECKING:
    from matplotlib.path import Path
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

log = logging.getLogger(__name__)

_SIZE = 100.0  # the outlines' font size, in the SVG's own units
_EM = 1.08  # Computer Modern looks smaller than the theme's text at the same size
_ROWS = re.compile(r"\\begin\{(aligned|align|align\*|gather|gathered|split)\}(.*)\\end\{\1\}", re.DOTALL)
# What TeX's users write and mathtext calls otherwise, or does without.
_DIALECT = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:bigg?|Bigg?)[lmr]?(?![A-Za-z])", ""),
        (r"\\(?:limits|nonumber|notag|displaystyle)(?![A-Za-z])", ""),
        (r"\\tfrac(?![A-Za-z])", r"\\frac"),
        (r"(\\d?frac)\s*(\w)\s*(\w)", r"\1{\2}{\3}"),
        (r"\\(le|ge|ne)(?![A-Za-z])", r"\\\1q"),
        (r"\\[lr]vert(?![A-Za-z])", "|"),
        (r"\\[lr]Vert(?![A-Za-z])", r"\\Vert "),
    )
)
_PATH_CODES = {1: "M", 2: "L", 3: "Q", 4: "C"}


def setup(app: Sphinx) -> dict[str, object]:
    """Register the renderer that ``html_math_renderer = "svg"`` names."""
    app.add_html_math_renderer("svg", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


@lru_cache(maxsize=2048)
def svg(tex: str) -> str:
    """One line of TeX as an ``<svg>`` that sits on the baseline of the text around it.

    - Raises ValueError: mathtext does not know a command in it.
    """
    from matplotlib import rc_context, rcParamsDefault
    from matplotlib.font_manager import FontProperties
    from matplotlib.mathtext import MathTextParser
    from matplotlib.textpath import TextPath

    one_line = " ".join(tex.split())
    formula = one_line
    for pattern, replacement in _DIALECT:
        formula = pattern.sub(replacement, formula)
    letters = rcParamsDefault["mathtext.default"]  # its name for "as TeX does" changed between releases
    with rc_context({"mathtext.fontset": "cm", "mathtext.default": letters}):
        size = FontProperties(size=_SIZE)
        width, height, depth, *_ = MathTextParser("path").parse(f"${formula}$", dpi=72, prop=size)
        outline = TextPath((0, 0), f"${formula}$", size=_SIZE)
    margin = 4  # italics lean out of their boxes
    box = (-margin, -height - margin, width + 2 * margin, height + depth + 2 * margin)
    em = _EM / _SIZE
    return (
        f'<svg role="img" aria-label="{html.escape(one_line, quote=True)}" class="formula" '
        f'viewBox="{" ".join(f"{edge:.1f}" for edge in box)}" width="{box[2] * em:.3f}em" '
        f'style="vertical-align:{-(depth + margin) * em:.3f}em" xmlns="http://www.w3.org/2000/svg">'
        f'<path fill="currentColor" d="{_path_data(outline)}"/></svg>'
    )


def _path_data(outline: Path) -> str:
    parts = []
    for points, code in outline.iter_segments(simplify=False):
        pairs = [f"{x:.1f} {-y:.1f}" for x, y in zip(points[::2], points[1::2], strict=True)]
        parts.append("Z" if code == 79 else _PATH_CODES[int(code)] + " ".join(pairs))
    return "".join(parts)


def lines(tex: str) -> list[str]:
    """The rows of a displayed formula, without alignment marks and row breaks."""
    found = _ROWS.search(tex)
    if not found:
        return [tex]
    rows = re.split(r"\\\\(?:\[[^\]]*\])?", found[2])
    rows = [(tex[: found.start()] if not number else "") + row for number, row in enumerate(rows)]
    rows[-1] += tex[found.end() :]
    return [re.sub(r"(?<!\\)&", "", row).strip() for row in rows if row.strip()]


def displayed(tex: str) -> str:
    """A formula on a line of its own has full-sized fractions, which mathtext draws only when asked."""
    return re.sub(r"\\frac(?![A-Za-z])", r"\\dfrac", tex)


def _drawn(tex: str, node: Element) -> str:
    try:
        return svg(tex)
    except (ValueError, AttributeError) as error:  # the latter for a formula of nothing but space
        log.warning("This formula cannot be drawn: %s (%s)", tex, str(error).splitlines()[-1], location=node)
        return f'<code class="formula">{html.escape(tex)}</code>'


def _inline(translator: HTML5Translator, node: Element) -> None:
    translator.body.append(f'<span class="formula-inline">{_drawn(node.astext(), node)}</span>')
    raise SkipNode


def _block(translator: HTML5Translator, node: Element) -> None:
    ids = "".join(f' id="{html.escape(name)}"' for name in node.get("ids", ())[:1])
    number = f'<span class="eqno">({node["number"]})</span>' if node.get("number") else ""
    rows = "".join(f"<div>{_drawn(displayed(row), node)}</div>" for row in lines(node.astext()))
    translator.body.append(f'<div class="formulas"{ids}>{number}{rows}</div>\n')
    raise SkipNode
