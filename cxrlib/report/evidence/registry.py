"""Which studies there are, what each answers, on which data sets, and how one is run."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cxrlib.cohort import Cohort
from cxrlib.datasets import SOURCES, load
from cxrlib.errors import ConfigError
from cxrlib.evaluation.results import record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOLDERS = ("data_dir", "nih_dir", "chexnet_dir")
"""What a study may need besides the data set: images, NIH's images, CheXNet's published scores."""


@dataclass(frozen=True)
class Run:
    """What a study is given.

    - ``dataset``, ``data_dir``: the source, and the folder of its images where it needs one.
    - ``preset``: smoke, course or full.
    - ``seeds``: one for each training; the first is that of the split and of the resampling.
    - ``image_size``: pixels a side.
    - ``nih_dir``, ``chexnet_dir``: the folder of NIH's images, and the one with CheXNet's ``preds.csv``.
    """

    dataset: str
    preset: str
    seeds: tuple[int, ...]
    image_size: int
    data_dir: Path | None = None
    nih_dir: Path | None = None
    chexnet_dir: Path | None = None

    @property
    def seed(self) -> int:
        return self.seeds[0]

    def folder(self, name: str) -> Path:
        """One of :data:`FOLDERS` that the study needs, which :func:`checked` saw to."""
        return cast(Path, getattr(self, name))

    def load(self, *, smoke: int, course: int | None = None, full: int | None = None, **other: Any) -> Cohort:
        """The data set's Cohort, of at most so many images under each preset."""
        limit = {"smoke": smoke, "course": course, "full": full}[self.preset]
        options = {
            "image_size": self.image_size,
            "limit": limit,
            "seed": self.seed,
            "data_dir": self.data_dir,
        }
        return load(self.dataset, **options | other)


@dataclass(frozen=True)
class Made:
    """What a study found: numbers by dotted name, the figure that shows them, and the images' hash.

    ``recipe``: how its networks were trained, in words; on Kermany's radiographs it is one for all studies,
    or says why not.
    """

    numbers: Mapping[str, Any]
    figure: Figure | Axes | None
    content_hash: str | None = None
    recipe: str | None = None


@dataclass(frozen=True)
class Entry:
    """A study that ``cxr study`` runs.

    - ``name``: of the study and of its files, ``figures/<dataset>/<name>.png`` and ``.json``.
    - ``answers``: what it answers, in one line.
    - ``recorded``: the data sets of which the project records it.
    - ``function``: ``module:function`` in this package; the function takes a Run and returns a Made.
    - ``image_size``: pixels a side, where none are asked for; 0 for a study of tables alone.
    - ``anywhere``: whether it runs on any source, and not on ``recorded`` alone.
    - ``seeded``, ``one_seed``: whether it takes several seeds, and on which data sets it does not.
    - ``folders``: data set to the folders that it needs there besides the source's own.
    """

    name: str
    answers: str
    recorded: tuple[str, ...]
    function: str
    image_size: int
    anywhere: bool = False
    seeded: bool = False
    one_seed: tuple[str, ...] = ()
    folders: Mapping[str, tuple[str, ...]] | None = None

    @property
    def datasets(self) -> tuple[str, ...]:
        """Where it runs, the recorded ones first."""
        return tuple(dict.fromkeys((*self.recorded, *SOURCES))) if self.anywhere else self.recorded

    def needs(self, dataset: str) -> tuple[str, ...]:
        """The folders that it needs on a data set, of :data:`FOLDERS`."""
        own = ("data_dir",) if self.image_size and SOURCES[dataset].needs == "folder" else ()
        return (self.folders or {}).get(dataset, own)

    def __call__(self, run: Run) -> Made:
        module, function = self.function.split(":")
        found = getattr(importlib.import_module(f"cxrlib.report.evidence.{module}"), function)
        return cast(Callable[[Run], Made], found)(run)


_NIH, _KERMANY, _PHANTOM, _MASKS = ("nih",), ("kermany",), ("phantom",), ("lung_masks",)
_CHEXNET = {"nih": ("chexnet_dir",)}
_TRAINED: dict[str, Any] = {"image_size": 64, "anywhere": True, "seeded": True}

STUDIES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry("images_per_patient", "How unevenly are images spread over patients?", _NIH,
              "tables:images_per_patient", 0),
        Entry("age", "How old are the patients?", _NIH, "tables:age", 0),
        Entry("view_prevalence", "How much more frequent is the label on AP than on PA films?",
              _NIH, "tables:view_prevalence", 0),
        Entry("label_noise", "How far do radiologists agree with labels mined from reports?", _NIH,
              "tables:label_noise", 0),
        Entry("pixel_free", "What AUC do the columns of a published table reach without a pixel?",
              ("nih", "public"), "tables:pixel_free", 0),
        Entry("cohort_pixel_free", "What AUC do a cohort's columns reach without a pixel?", _PHANTOM,
              "tables:cohort_pixel_free", 128, anywhere=True),
        Entry("class_means", "Where do the mean images of the two classes differ?", _PHANTOM,
              "tables:class_means", 128, anywhere=True),
        Entry("without_pixels", "What AUC do view, age, sex and visit reach in a cohort?", _PHANTOM,
              "tables:without_pixels", 64, anywhere=True),
        Entry("metadata", "How much of CheXNet's score is in view, age, sex and visit?", _NIH,
              "tables:metadata", 0, folders=_CHEXNET),
        Entry("chexnet_by_view", "What is CheXNet's AUC within one view and across views?", _NIH,
              "tables:chexnet_by_view", 0, folders=_CHEXNET),
        Entry("site_test", "Can hospitals be told apart after each step of the pipeline?", _MASKS,
              "lungs:site_test", 128, folders={"lung_masks": ("data_dir", "nih_dir")}),
        Entry("dice", "How well are lungs found at a hospital that was not seen?", _MASKS, "lungs:dice", 256,
              seeded=True),
        Entry("plausible", "How often is a lung mask plausible, with and without pneumonia?", _KERMANY,
              "lungs:plausible", 128, anywhere=True),
        Entry("first_network", "What does LeNet reach on validation phantoms?", _PHANTOM,
              "networks:first_network", 64),
        Entry("official_test", "What do three networks reach on the test images?", _KERMANY,
              "networks:official_test", **_TRAINED),
        Entry("roc", "What are the residual network's ROC and precision–recall curves?", _KERMANY,
              "errors:roc", **_TRAINED),
        Entry("operating_points", "What do thresholds from validation become on the test?", _KERMANY,
              "errors:operating_points", **_TRAINED),
        Entry("calibration", "Are its probabilities right, before and after scaling?", _KERMANY,
              "errors:calibration", **_TRAINED),
        Entry("subgroups", "For whom does it work less well?", _KERMANY, "errors:subgroups", **_TRAINED),
        Entry("label_errors", "Are suspected label errors real?", ("kermany", "nih"), "errors:label_errors",
              folders=_CHEXNET, one_seed=_NIH, **_TRAINED),
        Entry("attribution", "Do heat maps lie where the disease is?", _KERMANY, "errors:attribution",
              64, anywhere=True),
        Entry("gap", "Where does accuracy go between training, validation and test?", _KERMANY,
              "networks:gap", **_TRAINED),
        Entry("random_labels", "Can the network learn shuffled labels by heart?", _KERMANY,
              "networks:random_labels", **_TRAINED),
        Entry("dataset_size", "How does the error fall with more training images?", _KERMANY,
              "networks:dataset_size", **_TRAINED),
        Entry("capacity", "Is a wider network better?", _KERMANY, "networks:capacity", **_TRAINED),
        Entry("regularisers", "Which regulariser raises the test AUC?", _KERMANY, "networks:regularisers",
              **_TRAINED),
        Entry("leakage", "What does a split by image do to the AUC?", _KERMANY, "networks:leakage", 64,
              anywhere=True),
        Entry("selection", "What does choosing on the test images do to the AUC?", _KERMANY,
              "networks:selection", **_TRAINED),
        Entry("regions", "What does a network reach that sees a part of the image only?",
              ("kermany", "phantom"), "shortcuts:regions", **_TRAINED),
        Entry("strata", "What does a second machine explain of the fall on Kermany's official test?",
              _KERMANY, "strata:strata", 64, seeded=True),
        Entry("strata_pictures", "What do the networks say of healthy children of both machines?", _KERMANY,
              "strata:strata_pictures", 64, seeded=True),
        Entry("missing_stratum", "What becomes of a stratum's healthy when training has none of them?",
              ("kermany", "phantom"), "strata:missing_stratum", 64, seeded=True),
        Entry("harmonised", "What keeps a network from calling a stratum ill whose healthy it never saw?",
              _KERMANY, "strata:harmonised", 64, seeded=True),
        Entry("radiographs", "What do a healthy chest and a pneumonia look like, and PA beside AP?", _KERMANY,
              "radiographs:radiographs", 256, folders={"kermany": ("data_dir", "nih_dir")}),
        Entry("hospitals", "What is left of the AUC at another hospital?",
              ("kermany", "lung_masks", "phantom"), "shortcuts:hospitals", 64, seeded=True,
              folders={"kermany": ("data_dir", "nih_dir")}),
        Entry("dose_response", "How much of a planted letter does a network take, by its agreement?",
              _PHANTOM, "shortcuts:dose_response", 64, seeded=True),
        Entry("order_of_learning", "Which planted shortcut is learnt first?", _PHANTOM,
              "shortcuts:order_of_learning", 64, seeded=True),
        Entry("remedies", "What takes a planted letter away, and at what cost?", _PHANTOM,
              "shortcuts:remedies", 128, seeded=True),
        Entry("explorer", "What do the explorer's two networks reach, and which calls does a letter turn?",
              _PHANTOM, "shortcuts:explorer", 128),
        Entry("crop", "Does it help to show a network the chest only?", _KERMANY, "shortcuts:crop", 128,
              anywhere=True, seeded=True),
        Entry("scorecard", "What can the label be predicted from without the disease?",
              ("kermany", "lung_masks"), "audits:scorecard", 128, anywhere=True),
        Entry("audit_strata", "Does the audit name a second machine and a washed-out tone?", _KERMANY,
              "audits:audit_strata", 128),
        Entry("model_audit", "What does a classifier follow that is no disease, and can pixels show it?",
              ("kermany", "nih", "lung_masks"), "model_audits:model_audit", 64, seeded=True,
              one_seed=(*_NIH, *_MASKS), folders={"nih": ("data_dir", "chexnet_dir")}),
        Entry("skewed_source", "Does the audit name the source when the label is skewed across two?", _MASKS,
              "audits:skewed_source", 128),
        Entry("own_folder", "Does the audit find three faults planted in a folder of phantoms?", _PHANTOM,
              "audits:own_folder", 128),
    )
}  # fmt: skip


def study_named(name: str) -> Entry:
    """The study of this name; a ConfigError names the near ones."""
    if name not in STUDIES:
        raise ConfigError(
            f"There is no study {name!r}.", offenders=sorted(STUDIES), remedy="See `cxr study list`."
        )
    return STUDIES[name]


def checked(
    name: str,
    *,
    dataset: str | None = None,
    preset: str = "course",
    seeds: Sequence[int] | None = None,
    image_size: int | None = None,
    **folders: Path | None,
) -> Run:
    """What a study is to be given, with its defaults filled in.

    - Raises ConfigError: no such study, a data set that it does not run on, several seeds where it takes one,
      or a folder that it needs and was not given, or does not use and was.
    """
    entry = study_named(name)
    dataset = dataset or entry.recorded[0]
    if dataset not in entry.datasets:
        raise ConfigError(
            f"The study {name} does not run on {dataset!r}.", remedy=f"Use {', '.join(entry.datasets)}."
        )
    several = entry.seeded and dataset not in entry.one_seed
    seeds = tuple(seeds or ((0, 1, 2) if several and preset == "full" else (0,)))
    if len(seeds) > 1 and not several:
        raise ConfigError(
            f"The study {name} takes one seed on {dataset}.", remedy="Give one, as in --seeds 0."
        )
    given = {folder: path for folder, path in folders.items() if path is not None}
    needed = entry.needs(dataset)
    missing = [folder for folder in needed if folder not in given]
    if missing or not set(given) <= {*needed, "data_dir"}:
        options = ", ".join(f"--{folder.replace('_', '-')}" for folder in needed) or "no folder"
        raise ConfigError(f"The study {name} needs {options} on {dataset}.", remedy="Give these folders.")
    for folder, path in given.items():
        if not path.expanduser().is_dir():
            raise ConfigError(f"There is no folder {path}.", remedy=f"Give an existing one as its {folder}.")
    given = {folder: path.expanduser() for folder, path in given.items()}
    return Run(dataset, preset, seeds, image_size or entry.image_size, **given)


def command(name: str, run: Run) -> str:
    """The ``cxr study`` call of a run, with NAMES in the place of this machine's folders."""
    words = ["cxr", "study", name, "--dataset", run.dataset]
    for folder in FOLDERS:
        if getattr(run, folder) is not None:
            words += [f"--{folder.replace('_', '-')}", folder.upper()]
    words += ["--preset", run.preset, "--seeds", ",".join(map(str, run.seeds))]
    if run.image_size != STUDIES[name].image_size:
        words += ["--image-size", str(run.image_size)]
    return " ".join(words)


def run_study(name: str, run: Run, figures: str | Path = "figures") -> Path:
    """Run a study and write ``figures/<dataset>/<name>.png`` and ``.json``; returns the JSON.

    Networks that it trains are kept in the artefact store, so that a run that was cut short goes on.
    """
    from cxrlib.plots.common import apply_style

    apply_style()
    started = time.perf_counter()
    made = study_named(name)(run)
    return record(
        made.figure, name, made.numbers, dataset=run.dataset, figures=figures, preset=run.preset,
        seed=run.seeds, content_hash=made.content_hash, command=command(name, run), recipe=made.recipe,
        seconds=time.perf_counter() - started,
    )  # fmt: skip
