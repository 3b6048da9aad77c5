"""One function a figure: each takes data and an optional axis, and returns the axis.

``common`` has what several chapters draw, ``style`` the colours and sizes; the others are named after what
they show.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "common",
        "eda",
        "errors",
        "overfitting",
        "preprocessing",
        "remedies",
        "shortcuts",
        "training",
    ],
    submod_attrs={"style": ["apply_style"]},
)
