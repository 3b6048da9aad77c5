"""What of the label could be told without the disease: probes, rules and a page.

``audit_cohort`` asks every probe of ``probes`` about features made in one pass (``features``, ``signs``,
``files``, ``tables``; with ``looking``, while files are decoded); ``stats`` holds patients out, ``rules``
judges, ``page`` writes.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["plots"],
    submod_attrs={
        "features": ["describe"],
        "page": ["numbers", "sentence", "share_of", "write"],
        "rules": ["PROBES"],
        "run": ["Audit", "audit_cohort"],
        "study": ["own_folder", "skewed"],
    },
)
