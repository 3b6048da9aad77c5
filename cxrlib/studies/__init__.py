"""The questions that the chapters and the evidence ask, one file a question.

A study is a function of a Cohort, a preset and seeds that returns numbers. ``study`` and ``study_stats``
hold what they share: budgets, one training, differences with the variance of patients and of seeds.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "attribution", "chexnet", "crop_study", "dose_response", "hospitals", "leakage", "overfitting",
        "planting", "region_study", "remedies", "score_metadata", "shortcuts", "site_test",
    ],
    submod_attrs={"study": ["Study"]},
)  # fmt: skip
