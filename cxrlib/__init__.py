"""Build a chest X-ray pneumonia classifier, then measure what it is really looking at.

``load`` gives a :class:`~cxrlib.cohort.Cohort`; the other modules take one and return one, or an array
aligned with one. Nothing here is meant for clinical use.
"""

from cxrlib.errors import CxrError, CxrWarning

__version__ = "0.1.0"
__all__ = ["Cohort", "CxrError", "CxrWarning", "__version__", "load"]


def __getattr__(name: str) -> object:
    # Imported when asked for, so that `import cxrlib` and `cxr --help` stay under a second.
    if name == "Cohort":
        from cxrlib.cohort import Cohort

        return Cohort
    if name == "load":
        from cxrlib.datasets import load

        return load
    raise AttributeError(f"module 'cxrlib' has no attribute {name!r}")
