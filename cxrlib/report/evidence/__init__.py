"""The studies behind the recorded evidence, run by ``cxr study``, and their figures as chapters show them.

A study is a function of a :class:`~cxrlib.report.evidence.registry.Run` that returns numbers and a figure.
It stands here and not in ``cxrlib.studies``, because it draws and some studies are audits: this room is the
first that may import ``studies``, ``plots`` and ``audit``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "registry": ["STUDIES", "Entry", "Made", "Run", "run_study"],
        "show": ["evidence"],
    },
)
