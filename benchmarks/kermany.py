"""How far a small network gets on Kermany's official test set, from scratch, with nothing chosen on it.

    python benchmarks/kermany.py search        # what to train, on training patients only; about an hour
    python benchmarks/kermany.py test          # three seeds of the best of them, on the official 624

Plain validation cannot choose: its AUC is 0.99 whatever one does, because its frames and greys tell the label
as those of the training images do, and those of the test images do not. So the search holds out the training
patients whose frame and greys argue *against* their label (an eighth of each class, by the out-of-fold score
of a ridge classifier that sees nothing else) and asks which training is best on those. Needs Kermany's images
of 224 pixels under ``CXRLIB_DATA``. Writes ``benchmarks/kermany.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxrlib.cohort import Cohort
from cxrlib.datasets import load
from cxrlib.evaluation.metrics import auc, bootstrap_mean
from cxrlib.evaluation.results import provenance
from cxrlib.images.regions import crop_to_lungs
from cxrlib.io.decode import resize
from cxrlib.io.storage import atomic_path
from cxrlib.lungs.masks import segment
from cxrlib.training.inference import predict_logits
from cxrlib.training.recipes import AUGMENT, recipe
from cxrlib.training.robust import GroupBalanced
from cxrlib.training.trainer import Trainer

HELD_OUT, VALIDATION = 0.12, 0.08  # shares of the patients of each class
SEARCH_SIZE, TEST_SIZE = 64, 128
SEEDS = (0, 1, 2)
OUT = Path(__file__).with_suffix(".json")

STRONG = replace(AUGMENT, noise=0.06, erase=0.5)
FLIPPED = replace(STRONG, flip=0.5)
#: Name -> what is shown, what of the recipe is changed, and whether what the frame says is sampled alike.
ARMS: dict[str, tuple[str, dict, bool]] = {
    "recipe": ("whole", {}, False),
    "erase": ("whole", {"augment": STRONG}, False),
    "erase, flip": ("whole", {"augment": FLIPPED}, False),
    "crop": ("crop", {}, False),
    "crop, erase, flip": ("crop", {"augment": FLIPPED}, False),
    "alike": ("whole", {}, True),
    "alike, crop": ("crop", {}, True),
    "alike, crop, erase, flip": ("crop", {"augment": FLIPPED}, True),
    "alike, standard": ("standard", {}, True),
    "alike, averaged": ("whole", {"average_decay": 0.995}, True),
    "alike, dropout": ("whole", {"dropout": 0.5}, True),
    "alike, decay": ("whole", {"weight_decay": 0.2}, True),
    "alike, flip": ("whole", {"augment": replace(AUGMENT, flip=0.5)}, True),
    "alike, exposure": (
        "whole",
        {"augment": replace(AUGMENT, brightness=0.3, contrast=0.5, gamma=0.6)},
        True,
    ),
    "alike, longer": ("whole", {"epochs": 32}, True),
    "alike, decay, longer": ("whole", {"epochs": 32, "weight_decay": 0.2}, True),
}


@cache
def cohort() -> Cohort:
    return load("kermany", data_dir=Path(os.environ["CXRLIB_DATA"]) / "kermany224", image_size=224)


@cache
def shown(view: str, size: int) -> Cohort:
    """All images, whole or cropped to the lungs' box with a margin of 15%, at a size."""
    if "crop" in view:
        seen = crop_to_lungs(segment(cohort()), 0.15, size=size)
    else:
        seen = cohort().with_images(np.stack([resize(image, size) for image in cohort().images]))
    if "standard" not in view:
        return seen
    images = seen.images.astype(np.float32)
    mean, spread = images.mean((1, 2), keepdims=True), images.std((1, 2), keepdims=True) + 1
    return seen.with_images(np.clip((images - mean) / spread * 52 + 118, 0, 255).astype(np.uint8))


@cache
def frame_score() -> np.ndarray:
    """What frame and greys say of each training image, by a classifier that did not see its patient.

    The test images keep a score of zero and are not read.
    """
    small, scores = shown("whole", 128), np.zeros(len(cohort()))
    own = np.flatnonzero(cohort().table["split"] != "test")
    images, labels, patients = small.images[own].astype(np.float32), small.labels[own], small.patients[own]
    edges = [images[:, :13], images[:, -13:], images[:, :, :13], images[:, :, -13:]]
    parts = [edge.reshape(len(own), 13, 16, 8).mean((1, 3)) for edge in edges[:2]]
    parts += [edge.mean(2).reshape(len(own), 16, 8).mean(2) for edge in edges[2:]]
    parts.append(
        np.stack([np.bincount((i.astype(np.uint8) // 16).ravel(), minlength=16) for i in images]) / 64
    )
    seen = np.concatenate(parts, axis=1)
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    for train, rest in folds.split(seen, labels, patients):
        ridge = make_pipeline(StandardScaler(), RidgeClassifier(class_weight="balanced"))
        scores[own[rest]] = ridge.fit(seen[train], labels[train]).decision_function(seen[rest])
    return scores


def divided() -> pd.Series:
    """Each row: train, val, test (held out: the frame argues against the label); none if official test."""
    table = cohort().table.assign(against=np.where(cohort().labels == 1, -1, 1) * frame_score())
    table = table[table["split"] != "test"]
    patients = table.groupby("patient_id").agg(label=("label", "max"), against=("against", "mean"))
    rng, part = np.random.default_rng(0), {}
    for _, group in patients.groupby("label"):
        order = group.sort_values("against", ascending=False).index
        held = round(len(order) * HELD_OUT)
        part |= dict.fromkeys(order[:held], "test")
        part |= dict.fromkeys(rng.choice(order[held:], round(len(order) * VALIDATION), replace=False), "val")
    split = cohort().table["patient_id"].map(part).fillna("train")
    return split.where(cohort().table["split"] != "test")


def trained(arm: str, size: int, seed: int, split: pd.Series | None) -> tuple[np.ndarray, np.ndarray, dict]:
    """Train one arm; labels and log odds of the part ``test``, and what else there is to say.

    Where the augmentation mirrors, the log odds are the mean of those of image and mirror image.
    """
    view, changes, alike = ARMS[arm]
    data = shown(view, size).with_columns(says_ill=(frame_score() > 0).astype(int))
    if split is not None:
        own = split.notna().to_numpy()
        data = data.take(np.flatnonzero(own)).with_columns(split=split[own].to_numpy())
    if alike:
        changes = changes | {"class_weighted": False}
    config = recipe("residual", "full", seed=seed, check_ins=0.25, **changes)
    clock = time.process_time(), time.perf_counter()
    trainer = Trainer(config, [GroupBalanced("says_ill")] if alike else [])
    history = trainer.fit(data)
    costs = {
        "processor_seconds": round(time.process_time() - clock[0], 1),
        "seconds": round(time.perf_counter() - clock[1], 1),
        "val_auc": float(history["val_auc"].iloc[-1]),
    }
    held = data.split("test")
    logits = predict_logits(trainer.model, held.images)
    if config.augment.flip:
        logits = (logits + predict_logits(trainer.model, np.ascontiguousarray(held.images[:, :, ::-1]))) / 2
    return held.labels, logits, costs


def accuracy(labels: np.ndarray, logits: np.ndarray) -> float:
    return float(((logits > 0) == labels).mean())


def search(given) -> None:
    split = divided()
    facts = read(given.out)
    for seed in given.seeds:
        for arm in given.arms or ARMS:
            known = [row for row in facts["search"] if (row["arm"], row["seed"]) == (arm, seed)]
            if known:
                continue
            labels, logits, costs = trained(arm, given.size or SEARCH_SIZE, seed, split)
            row = {"arm": arm, "seed": seed, "auc": float(auc(labels, logits))}
            row |= {"accuracy": accuracy(labels, logits), "images": len(labels)} | costs
            print(row, flush=True)
            facts["search"].append(row)
            write(given.out, facts, "search")


def test(given) -> None:
    facts = read(given.out)
    table = pd.DataFrame(facts["search"]).groupby("arm")["auc"].mean()
    arm = given.arms[0] if given.arms else table.idxmax()
    tested = [trained(arm, given.size or TEST_SIZE, seed, None) for seed in given.seeds]
    held = shown("whole", 128).split("test")
    scores = np.stack([1 / (1 + np.exp(-logits)) for _, logits, _ in tested])
    measured = bootstrap_mean(held.labels, scores, held.patients)
    facts["test"] = {
        "arm": arm,
        "size": given.size or TEST_SIZE,
        "numbers": {
            name: {"value": estimate.value, "low": estimate.low, "high": estimate.high}
            for name, estimate in measured.items()
        },
        "targets": {"auc": 0.993, "accuracy": 0.955},
        "seeds": [
            {"seed": seed, "auc": float(auc(labels, logits)), "accuracy": accuracy(labels, logits)} | costs
            for seed, (labels, logits, costs) in zip(given.seeds, tested, strict=True)
        ],
    }
    print(json.dumps(facts["test"], indent=1))
    write(given.out, facts, "test")


def read(path: Path) -> dict:
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    return {"schema": 1, "name": "kermany", "search": [], "test": None}


def write(path: Path, facts: dict, what: str) -> None:
    facts["provenance"] = provenance(command=f"python benchmarks/kermany.py {what}")
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["search", "test"])
    parser.add_argument("--arms", nargs="*", choices=ARMS, metavar="ARM", help="; ".join(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--size", type=int, help=f"pixels: {SEARCH_SIZE} to search, {TEST_SIZE} to test")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    given.seeds = given.seeds or ([0] if given.what == "search" else SEEDS)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    {"search": search, "test": test}[given.what](given)


if __name__ == "__main__":
    main()
