"""What a figure says, for the tests of figures."""

import io

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def texts(drawn: Axes | Figure) -> list[str]:
    """What can be read in a figure, or that of an axis, once it is rendered."""
    figure = drawn.figure
    figure.savefig(io.BytesIO(), format="png", dpi=50)
    return [t.get_text() for t in figure.findobj(plt.Text) if t.get_visible() and t.get_text()]
