"""Networks, the loop, and what happens around it.

``Trainer`` runs ``TrainConfig`` on a Cohort; callbacks hook into it; ``recipe`` gives the settings behind
each preset; ``train_or_load`` keeps what was trained; ``predict`` gives probabilities. ``distributed`` is
several processes that train one network, ``robust`` trainings that know of groups.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "augment": ["Augment"],
        "callbacks": ["Callback", "Checkpoint", "NonFiniteRecovery", "TensorBoard"],
        "config": ["TrainConfig"],
        "inference": ["load_model", "predict", "predict_logits"],
        "models": ["build", "count_parameters"],
        "recipes": ["compare", "recipe"],
        "robust": ["GROUPS", "groups_of"],
        "store": ["train_or_load"],
        "trainer": ["Trainer"],
    },
)
