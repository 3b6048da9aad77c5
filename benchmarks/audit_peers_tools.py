"""The other tools' side of ``audit_peers.py``: runs in the environment of each, without this package.

    python benchmarks/audit_peers_tools.py datalab|deepchecks|shortkit WORK

Reads ``WORK/plan.json`` and the PNG files beside it, appends a line a cohort to ``WORK/<tool>.jsonl``: for
each reading ``flag`` (it reports something at its defaults), ``score`` (its own number, larger is more
suspicious) and ``names`` (the properties that it reports). What is there already is not asked again.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from functools import partial
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd


class Datalab:
    """cleanlab's Datalab: correlations between the label and image properties (cleanvision).

    Its tutorial says ``Datalab(data, label_name=…, image_key=…).find_issues()``. cleanvision's scores
    depend on the images alone and are computed once; what Datalab then computes from them and the labels,
    ``handle_spurious_correlations`` at the default threshold of 0.3, is called as Datalab calls it.
    :meth:`check` runs all of Datalab on two cohorts and holds the two together. ``mended``: the same with the
    commonest class's count, and not its index, over n as the accuracy to beat.
    """

    package = "cleanlab"

    def __init__(self, work: Path) -> None:
        from cleanlab.datalab.internal.adapter import constants

        self.work, self.threshold = (
            work,
            constants.SPURIOUS_CORRELATION_ISSUE["spurious_correlations"]["threshold"],
        )
        self.issues = constants.DEFAULT_CLEANVISION_ISSUES
        self.properties: dict[str, pd.DataFrame] = {}
        self.checked = 0

    def prepare(self, pool: str) -> None:
        from cleanvision import Imagelab

        kept = self.work / f"datalab-{pool}.csv"
        if not kept.is_file():
            files = sorted(str(path) for path in (self.work / pool).glob("*.png"))
            lab = Imagelab(filepaths=files)
            lab.find_issues(issue_types=self.issues, n_jobs=1, verbose=False)
            scores = lab.issues[[c for c in lab.issues if c.endswith("_score")]]
            scores.set_axis([Path(str(one)).stem for one in scores.index]).to_csv(kept)
        self.properties[pool] = pd.read_csv(kept, index_col=0, float_precision="round_trip")

    def look(self, pool: str, stems: list[str], labels: np.ndarray) -> dict[str, dict]:
        from cleanlab.datalab.internal import spurious_correlation as theirs
        from cleanlab.datalab.internal.adapter.imagelab import handle_spurious_correlations

        scores = self.properties[pool].loc[stems].reset_index(drop=True)
        shipped = handle_spurious_correlations(
            imagelab_issues=scores, labels=labels, threshold=self.threshold
        )["correlations_df"]
        if self.checked < 2:
            self.check(pool, stems, labels, shipped)

        class Mended(theirs.SpuriousCorrelations):
            def _get_baseline(self) -> float:
                return float(np.bincount(self.labels).max() / len(self.labels))

        mended = Mended(data=scores, labels=labels).calculate_correlations()
        return {"datalab": self.said(shipped), "datalab_mended": self.said(mended)}

    def said(self, table: pd.DataFrame) -> dict:
        low = table[table["score"] < self.threshold].sort_values("score")
        names = [name.removesuffix("_score") for name in low["property"]]
        return {"flag": bool(names), "score": float(1 - table["score"].min()), "names": names}

    def whole(self, pool: str, stems: list[str], labels: np.ndarray) -> pd.DataFrame:
        from cleanlab import Datalab as Theirs
        from datasets import Dataset, Image

        files = [str(self.work / pool / f"{stem}.png") for stem in stems]
        data = Dataset.from_dict({"image": files, "label": labels.tolist()}).cast_column("image", Image())
        lab = Theirs(data=data, label_name="label", image_key="image", verbosity=0)
        lab.find_issues()
        return lab.get_info("spurious_correlations")["correlations_df"]

    def check(self, pool: str, stems: list[str], labels: np.ndarray, shipped: pd.DataFrame) -> None:
        said = self.whole(pool, stems, labels).set_index("property")["score"]
        ours = shipped.set_index("property")["score"].reindex(said.index)
        if not np.allclose(said, ours, atol=1e-9):
            raise SystemExit(f"Datalab as a whole says {said.to_dict()}, in parts {ours.to_dict()}.")
        self.checked += 1

    def cost(self, pool: str, stems: list[str], labels: np.ndarray) -> None:
        self.whole(pool, stems, labels)


class Deepchecks:
    """Deepchecks' vision checks on its default image properties, at their default conditions.

    ``deepchecks``: ``PropertyLabelCorrelation`` (a property's predictive power score for the label, 0.3).
    ``deepchecks_drift``: ``ImagePropertyDrift`` (Kolmogorov-Smirnov, 0.2), which is given more than its
    documentation says: the healthy as one data set and the ill as the other, as a random split has no drift.
    Its own property functions are run once a file; the checks are then run on whole cohorts with properties
    that look these values up. Two cohorts are also run on their pictures, and have to have nearly the
    same drift: it samples 10,000 pixels a picture at random (on which the predictive power hangs more).
    """

    package = "deepchecks"

    def __init__(self, work: Path) -> None:
        from deepchecks.vision.utils.image_properties import default_image_properties

        self.work, self.defaults = work, default_image_properties
        self.properties: dict[str, pd.DataFrame] = {}
        self.checked = 0

    def prepare(self, pool: str) -> None:
        from deepchecks.vision.utils.image_properties import calc_default_image_properties

        kept = self.work / f"deepchecks-{pool}.csv"
        if not kept.is_file():
            np.random.seed(0)  # noqa: NPY002 - it samples pixels by the global generator
            rows = {}
            for path in sorted((self.work / pool).glob("*.png")):
                found = calc_default_image_properties([self.image(path)])
                rows[path.stem] = {name: values[0] for name, values in found.items()}
            pd.DataFrame.from_dict(rows, orient="index").to_csv(kept)
        self.properties[pool] = pd.read_csv(kept, index_col=0, float_precision="round_trip")

    @staticmethod
    def image(path: Path) -> np.ndarray:
        from PIL import Image

        return np.array(Image.open(path))[:, :, None]

    def look(self, pool: str, stems: list[str], labels: np.ndarray) -> dict[str, dict]:
        values = self.properties[pool].loc[stems]
        # A "picture" of three pixels holds the number of its row.
        rows = np.arange(len(stems))
        pictures = [np.array([[[row % 256], [row // 256], [255]]], dtype=np.uint8) for row in rows]
        kept = [
            one | {"method": partial(_looked_up, values[one["name"]].to_numpy())} for one in self.defaults
        ]
        found = self.checks(pictures, labels, kept)
        if self.checked < 2:
            part, full = found[1], self.whole(pool, stems, labels)[1]
            if part.keys() != full.keys() or any(abs(part[k] - full[k]) > 0.05 for k in full):
                raise SystemExit(f"Deepchecks as a whole says {full}, in parts {part}.")
            self.checked += 1
        power, drift = found
        return {"deepchecks": self.said(power, 0.3), "deepchecks_drift": self.said(drift, 0.2)}

    @staticmethod
    def said(scores: dict[str, float], threshold: float) -> dict:
        names = [name for name, score in scores.items() if score >= threshold]
        return {"flag": bool(names), "score": float(max(scores.values())), "names": names}

    @staticmethod
    def data(pictures: list[np.ndarray], labels: np.ndarray):
        from deepchecks.vision import VisionData

        batches = [
            {"images": pictures[start : start + 64], "labels": labels[start : start + 64].tolist()}
            for start in range(0, len(pictures), 64)
        ]
        names = {0: "healthy", 1: "ill"}  # without names its predictive power is 0, whatever the labels
        return VisionData(batches, task_type="classification", label_map=names, reshuffle_data=False)

    def checks(
        self, pictures: list[np.ndarray], labels: np.ndarray, properties: list[dict] | None
    ) -> tuple[dict[str, float], dict[str, float]]:
        from deepchecks.vision.checks import ImagePropertyDrift, PropertyLabelCorrelation

        order = np.random.default_rng(0).permutation(len(labels))  # batches must be shuffled
        pictures, labels = [pictures[row] for row in order], labels[order]
        power = PropertyLabelCorrelation(image_properties=properties).run(
            self.data(pictures, labels), with_display=False
        )
        healthy, ill = (
            self.data(
                [one for one, y in zip(pictures, labels, strict=True) if y == label], labels[labels == label]
            )
            for label in (0, 1)
        )
        drift = ImagePropertyDrift(image_properties=properties).run(healthy, ill, with_display=False)
        scores = {name: said["Drift score"] for name, said in drift.value.items()}
        return dict(power.value), {name: score for name, score in scores.items() if score is not None}

    def whole(self, pool: str, stems: list[str], labels: np.ndarray) -> tuple[dict, dict]:
        pictures = [self.image(self.work / pool / f"{stem}.png") for stem in stems]
        return self.checks(pictures, labels, None)

    def cost(self, pool: str, stems: list[str], labels: np.ndarray) -> None:
        self.whole(pool, stems, labels)


def _looked_up(values: np.ndarray, images: list[np.ndarray]) -> list[float | None]:
    """The values of the rows that pictures of three pixels stand for."""
    rows = (int(image[0, 0, 0]) + 256 * int(image[0, 1, 0]) for image in images)
    return [None if pd.isna(values[row]) else float(values[row]) for row in rows]


class ShortKit:
    """ShortKIT-ML's four methods of its quick start, on embeddings with the label as the group.

    It looks at embeddings and not at pictures, so it is given ours: of the whole image (``whole``, which sees
    the disease), and of what lies outside the lungs (``outside``: the signs, which were made for these very
    confounders, and the frame). *Flag*: its assessment is HIGH RISK (two methods or more). Score: its
    probe's F1. It names no property.
    """

    package = "shortkit-ml"
    methods = ("hbac", "probe", "statistical", "geometric")

    def __init__(self, work: Path) -> None:
        self.work = work
        self.embeddings: dict[str, dict[str, np.ndarray]] = {}
        self.place: dict[str, dict[str, int]] = {}

    def prepare(self, pool: str) -> None:
        with np.load(self.work / f"embeddings-{pool}.npz") as stored:
            self.place[pool] = {stem: row for row, stem in enumerate(stored["stems"].tolist())}
            self.embeddings[pool] = {name: stored[name] for name in ("whole", "outside")}

    def look(self, pool: str, stems: list[str], labels: np.ndarray) -> dict[str, dict]:
        rows = [self.place[pool][stem] for stem in stems]
        return {
            f"shortkit_{name}": self.asked(values[rows], labels)
            for name, values in self.embeddings[pool].items()
        }

    def asked(self, embeddings: np.ndarray, labels: np.ndarray) -> dict:
        from contextlib import redirect_stdout
        from io import StringIO

        from shortcut_detect import ShortcutDetector

        with redirect_stdout(StringIO()):
            detector = ShortcutDetector(methods=list(self.methods)).fit(embeddings, labels)
            said = detector.summary()
        results = detector.get_results()
        probe = results["probe"]["results"]["metrics"]["metric_value"]
        return {"flag": "HIGH RISK" in said, "score": float(probe), "names": []}

    def cost(self, pool: str, stems: list[str], labels: np.ndarray) -> None:
        self.prepare(pool)
        rows = [self.place[pool][stem] for stem in stems]
        self.asked(self.embeddings[pool]["whole"][rows], labels)


TOOLS = {"datalab": Datalab, "deepchecks": Deepchecks, "shortkit": ShortKit}


def main() -> None:
    name, work = sys.argv[1], Path(sys.argv[2])
    plan = json.loads((work / "plan.json").read_text(encoding="utf-8"))
    out = work / f"{name}.jsonl"
    done = (
        {json.loads(line)["name"] for line in out.read_text("utf-8").splitlines()} if out.is_file() else set()
    )
    if len(sys.argv) > 3:  # in a process of its own, so that nothing is loaded yet
        timed = plan["timed"]
        TOOLS[name](work).cost("phantom", timed["stems"], np.array(timed["labels"]))
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        seconds = sum(one.ru_utime + one.ru_stime for one in used)
        spent = {"seconds": seconds, "gb": max(one.ru_maxrss for one in used) / 2**20}
        (work / f"{name}-cost.json").write_text(json.dumps(spent), encoding="utf-8")
        return
    tool = TOOLS[name](work)
    packages = (tool.package, "cleanvision", "numpy", "scikit-learn", "torch")
    versions = {p: metadata.version(p) for p in packages if _installed(p)}
    (work / f"{name}-versions.json").write_text(json.dumps(versions), encoding="utf-8")
    for pool in sorted({one["pool"] for one in plan["cohorts"]}):
        mine = [one for one in plan["cohorts"] if one["pool"] == pool and one["name"] not in done]
        if not mine:
            continue
        tool.prepare(pool)
        for number, cohort in enumerate(mine):
            started = time.process_time()
            found = tool.look(pool, cohort["stems"], np.array(cohort["labels"]))
            line = {"name": cohort["name"], **found, "seconds": time.process_time() - started}
            with out.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
            if number % 20 == 0:
                print(f"{name}: {pool}, {number} of {len(mine)} cohorts", flush=True)


def _installed(package: str) -> bool:
    try:
        return bool(metadata.version(package))
    except metadata.PackageNotFoundError:
        return False


if __name__ == "__main__":
    main()
