"""The look of all figures: Okabe and Ito's colours, line styles and hatches, and matplotlib's defaults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler

from cxrlib.errors import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.typing import LineStyleType

    from cxrlib.evaluation.metrics import Estimate

BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, ORANGE, SKY = "#CC79A7", "#E69F00", "#56B4E9"
BLACK, GREY = "#222222", "#767676"
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
STYLES: tuple[LineStyleType, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P")


def apply_style() -> None:
    """Set the defaults of all figures of this session: readable at README size, white behind, constrained."""
    plt.rcParams.update(
        {
            "figure.figsize": (6.4, 4.0),
            "figure.dpi": 100,
            "figure.facecolor": "white",  # not transparent: dark pages would swallow the labels
            "figure.constrained_layout.use": True,
            "savefig.dpi": 150,
            "savefig.facecolor": "white",
            "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine draws alike
            "font.size": 11,
            "axes.titlesize": 12.5,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.titlepad": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": GREY,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.prop_cycle": cycler(color=COLOURS) + cycler(linestyle=STYLES),
            "grid.color": "#E4E4E4",
            "grid.linewidth": 0.8,
            "lines.linewidth": 1.9,
            "legend.frameon": False,
            "legend.fontsize": 10,
            "hatch.linewidth": 0.6,
            "image.cmap": "gray",
        }
    )


def as_text(label: object) -> str:
    """A name from outside as matplotlib is to draw it, letter by letter: ``$`` begins no formula."""
    return "\n".join(map(printable, str(label).split("\n"))).replace("$", r"\$")


def limits(found: Sequence[Estimate]) -> tuple[np.ndarray, np.ndarray]:
    """Where the intervals begin and end, float64, (N,) each; NaN, which draws nothing, for none."""
    return np.array([e.low for e in found], dtype=float), np.array([e.high for e in found], dtype=float)


def cycled(looks: Sequence) -> list:
    """Enough of the looks for any number of groups."""
    return list(looks) * 8


def rows_on(ax: Axes, heights: Sequence[float] | np.ndarray, labels: Sequence[str], top: float = 0.6) -> None:
    """Name the rows of a plot that has one at each height, with room below the last and above the first."""
    ax.set_yticks(heights, labels)
    ax.set_ylim(min(heights) - 0.6, max(heights) + top)
    ax.grid(axis="y", visible=False)


def picture(ax: Axes, image: np.ndarray) -> None:
    """A radiograph, uint8 (H, W), on an axis without ticks and frame, so that it can still have a label."""
    ax.imshow(image, cmap="gray", vmin=0, vmax=255)
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)


def dots(
    ax: Axes, found: Sequence[Estimate], heights: Sequence[float] | np.ndarray, colour: str, marker: str,
    label: str | None = None,
) -> None:  # fmt: skip
    """Values with their horizontal intervals, where they have one."""
    values = np.array([e.value for e in found])
    low, high = limits(found)
    errors = np.nan_to_num(np.maximum(0, [values - low, high - values]))
    ax.errorbar(values, heights, xerr=errors, fmt=marker, color=colour, markeredgecolor="white",
                markersize=7.5, capsize=3, elinewidth=1.8, linestyle="none", label=label)  # fmt: skip
