"""Synthetic chest radiographs from a causal model, with their truth: lungs, lesions, confounders.

``load`` makes a Cohort, ``twin`` the same patients with one thing changed. ``PhantomConfig`` and
``Confounder`` say what goes with the label. ``latents`` draws patients, ``anatomy``, ``bones`` and ``lung``
build them, ``canvas`` and ``overlays`` image them, ``store`` keeps what was rendered.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "latents": ["CONFOUNDERS", "Confounder", "PhantomConfig"],
        "phantom": ["load", "render", "twin"],
    },
)
