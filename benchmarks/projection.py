"""The template that tells AP from PA: fitted to phantoms alone, measured on phantoms and on radiographs.

    python benchmarks/projection.py --nih DIR       # writes benchmarks/projection.json; two minutes
    python benchmarks/projection.py --write         # also renews cxrlib/audit/data/projection.npz

``--nih``: a folder of NIH ChestX-ray14, whose table knows each image's projection. No radiograph takes part
in the fit.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from cxrlib.audit.signs import TEMPLATE, around_lungs
from cxrlib.datasets import load
from cxrlib.evaluation.metrics import bootstrap
from cxrlib.evaluation.results import provenance
from cxrlib.io.storage import atomic_path
from cxrlib.lungs.masks import segment
from cxrlib.phantom.latents import CONFOUNDERS, Confounder, PhantomConfig

PENALTY = 3000.0
HALF = PhantomConfig(**{name: Confounder(0.5, 0.5) for name in CONFOUNDERS})


def looked(cohort):
    """What the template sees of each image with a lung mask, and which these are."""
    rows = [around_lungs(image, mask) for image, mask in zip(cohort.images, cohort.lung_masks, strict=True)]
    there = np.array([row is not None for row in rows])
    return np.stack([row for row in rows if row is not None]), cohort.take(there)


def fit(features: np.ndarray, is_ap: np.ndarray) -> dict[str, np.ndarray]:
    centre, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    known = (features - centre) / spread
    target = np.where(is_ap, 1.0, -1.0)
    gram = known.T @ known + PENALTY * np.eye(known.shape[1])
    weights = np.linalg.solve(gram, known.T @ (target - target.mean()))
    return {"weights": weights, "centre": centre, "spread": spread}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nih", type=Path)
    parser.add_argument("--images", type=int, default=2500)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    options = {"image_size": 128, "config": HALF}
    features, train = looked(segment(load("phantom", n=given.images, seed=900_011, **options)))
    template = fit(features, (train.table["view"] == "AP").to_numpy())
    stored = {name: values.astype(np.float16) for name, values in template.items()}
    if given.write:
        with atomic_path(TEMPLATE) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **stored)
    weights, centre, spread = (stored[name].astype(float) for name in ("weights", "centre", "spread"))
    tests = {"phantom": load("phantom", n=1000, seed=900_012, **options)}
    if given.nih:
        tests["nih"] = load("nih", data_dir=given.nih, image_size=128)
    numbers = {}
    for name, cohort in tests.items():
        features, part = looked(segment(cohort))
        scores = ((features - centre) / spread) @ weights
        is_ap = (part.table["view"] == "AP").to_numpy().astype(int)
        for what, labels in (("projection", is_ap), ("disease", part.labels)):
            numbers[f"{name}.{what}.auc"] = bootstrap(labels, scores, part.patients, ("auc",))["auc"]
            print(f"{name}, {what}: AUC {numbers[f'{name}.{what}.auc']}")
    facts = {
        "schema": 1,
        "name": "projection",
        "numbers": {name: number.as_dict() for name, number in numbers.items()},
        "provenance": provenance(command="python benchmarks/projection.py --nih DIR", seed=900_011),
    }
    with atomic_path(given.out) as temporary:
        temporary.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
