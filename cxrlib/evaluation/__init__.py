"""Metrics with intervals, and the records that numbers stand in.

AUC, calibration, operating points, subgroups and label errors, resampled by patient (``metrics`` first);
``eda`` describes tables, ``results`` writes and reads the evidence in ``figures/``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["calibration", "eda", "eda_images", "label_errors", "operating_points", "subgroups"],
    submod_attrs={
        "metrics": [
            "Estimate",
            "auc",
            "bootstrap",
            "bootstrap_mean",
            "choose_threshold",
            "delong",
            "evaluate",
            "over_seeds",
            "proportion",
        ],
        "results": ["project_root", "provenance", "read_record", "record"],
    },
)
