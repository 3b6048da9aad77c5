"""The consistent pipeline: what is done alike to every image before a network sees it.

Polarity, borders, letters, greys and geometry, in that order (``pipeline`` for one image, ``cohorts`` for
many); ``regions`` keeps or removes the lungs, the frame, the corners; ``burned_in`` finds printed text.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "burned_in": ["text_lines"],
        "cohorts": ["geometry_of", "preprocess", "steps"],
        "pipeline": ["PreprocessConfig"],
        "regions": ["VIEWS", "crop_to_lungs", "keep_frame", "keep_lungs", "remove_lungs"],
    },
)
