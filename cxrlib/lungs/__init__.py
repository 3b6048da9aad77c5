"""Finding the lungs: masks from the network that ships, and the training of such networks.

``segment`` adds masks to a Cohort, ``apply_to_files`` writes masks or cut images of files; ``study``
measures Dice.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "files": ["apply_to_files"],
        "masks": ["segment"],
        "network": ["dice"],
        "study": ["dice_numbers", "dice_study", "hospital"],
    },
)
