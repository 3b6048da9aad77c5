"""Metrics with intervals, and the records that numbers stand in.

AUC, calibration, operating points, subgroups and label errors, resampled by patient (``metrics`` first);
``eda`` describes tables, ``results`` writes and reads the evidence in ``figures/``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "metrics": ["Estimate", "auc", "bootstrap", "choose_threshold", "delong", "evaluate"],
        "results": ["project_root", "provenance", "read_record", "record"],
    },
)
