"""Build a chest X-ray pneumonia classifier, then measure what it is really looking at.

``load`` gives a :class:`~cxrlib.cohort.Cohort`: images, a table, masks. It flows through the rooms
below; each imports only from those above it.

====================  ================================================================================
``errors``            what is raised and warned of
``cohort``            the Cohort, and splits by patient
``parallel``          several processes, with a bar
``io``                a file's bytes as 8-bit grey; caches on disk
``phantom``           synthetic radiographs with their truth
``images``            the consistent pipeline: polarity, borders, letters, geometry, regions
``datasets``          one file a source, each ends in a Cohort
``evaluation``        metrics with intervals, calibration, subgroups, records
``training``          networks, the loop, callbacks, recipes
``lungs``             finding the lungs
``studies``           the questions that chapters and evidence ask
``plots``             one function a figure
``audit``             probes, rules, page
``report``            papermill over the notebooks, then the site
``cli``               ``cxr``
====================  ================================================================================

Nothing here is meant for clinical use.
"""

import lazy_loader

from cxrlib.errors import CxrError, CxrWarning

__version__ = "0.1.0"

# Imported when asked for, so that `import cxrlib` and `cxr --help` stay under a second.
__getattr__, __dir__, _lazy = lazy_loader.attach(
    __name__, submod_attrs={"cohort": ["Cohort"], "datasets": ["load"]}
)
__all__ = ["Cohort", "CxrError", "CxrWarning", "__version__", "load"]
