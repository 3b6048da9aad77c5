"""The notebooks in batch, and the site that is rendered from them.

``batch`` runs them by papermill, ``report`` does that and renders, ``grid`` compares reports, ``site``
draws pages.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "course": ["chapters", "findings"],
        "grid": ["run_grid"],
        "report": ["run_report"],
    },
)
