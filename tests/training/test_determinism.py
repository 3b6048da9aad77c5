"""The same seed gives the same data: on every machine and Python, in every order of rows and every locale.

That it gives the same weights is in test_training.py, and the same intervals in test_metrics.py.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrlib.cohort import Cohort, split_by_patient
from cxrlib.datasets import load
from cxrlib.studies.shortcuts import patient_folds

# Golden: a change of these is a change of every phantom, and every number measured on one, that there is.
PHANTOMS = {
    "40 images of 64 pixels": ({"n": 40, "image_size": 64}, "da1803be1c3fa6da"),
    "24 images of 128 pixels, seed 7": ({"n": 24, "image_size": 128, "seed": 7}, "88f8ec65c985d7fa"),
    "3 images of 320 pixels, seed 2": ({"n": 3, "image_size": 320, "seed": 2}, "1b5a0ed041f1501a"),
    "everything tied to the disease": (
        {"n": 24, "image_size": 64, "seed": 1, "marker": 1.0, "portable": 0.9, "collimation": 0.9}
        | {"devices": 0.9, "exposure": 0.9, "images_per_patient": 3},
        "e3e8f23477a46bf0",
    ),
}
IDS = [f"patient {i}" for i in range(3000)] + ["Ångström", "ИВАНОВ", "I", "ı", "i", "İ"]
SPLITS = {"train": "7b52d052e787a744", "val": "facbf855d0f78571", "test": "7f1c869fb0950a80"}
FOLDS = "267a482558e920cd"


def digest(*parts) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part.tobytes() if isinstance(part, np.ndarray) else str(part).encode() + b"\0")
    return whole.hexdigest()[:16]


def of_phantom(options: dict) -> str:
    made = load("phantom", **options)
    columns = made.table[["image_id", "patient_id", "label", "split", "view", "sex", "site", "subtype"]]
    return digest(made.images, made.lung_masks, made.lesion_masks, *columns.to_numpy().ravel())


def of_splits(ids: list[str]) -> dict[str, str]:
    splits = split_by_patient(ids, seed=3)
    return {part: digest(*sorted(np.array(ids)[splits == part])) for part in ("train", "val", "test")}


def of_folds(ids: list[str]) -> str:
    return digest(*(f"{name} {fold}" for name, fold in sorted(zip(ids, patient_folds(ids, 5), strict=True))))


@pytest.mark.parametrize("name", PHANTOMS)
def test_phantoms_are_the_golden_ones(name):
    options, golden = PHANTOMS[name]
    assert of_phantom(options) == golden


def test_splits_and_folds_are_the_golden_ones_in_any_order():
    mixed = [IDS[i] for i in np.random.default_rng(0).permutation(len(IDS))]
    assert of_splits(IDS) == of_splits(mixed) == SPLITS
    assert of_folds(IDS) == of_folds(mixed) == FOLDS


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names instructions of x86-64")
def test_an_older_processor_another_locale_and_hash_seed_change_nothing():
    """The processor's newer instructions are taken from NumPy and its BLAS, so that exp, sin and matrix
    products end in other last bits, as on another machine."""
    script = """
        import json, sys
        import numpy as np
        import test_determinism as here

        phantoms = {name: here.of_phantom(options) for name, (options, _) in here.PHANTOMS.items()}
        found = {"phantoms": phantoms, "splits": here.of_splits(here.IDS), "folds": here.of_folds(here.IDS)}
        json.dump(found | {"bits": here.bits()}, sys.stdout)
    """
    newer = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path]),
        "NPY_DISABLE_CPU_FEATURES": " ".join(newer),
        "OPENBLAS_CORETYPE": "Nehalem",
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONHASHSEED": "1",
    }
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    if found["bits"] == bits():
        pytest.skip("this NumPy computes alike with and without them: nothing was tried")
    assert found["phantoms"] == {name: golden for name, (_, golden) in PHANTOMS.items()}
    assert (found["splits"], found["folds"]) == (SPLITS, FOLDS)


def bits() -> str:
    """What is not the same on every machine."""
    numbers = np.random.default_rng(0).standard_normal((200, 300))
    return digest(numbers @ numbers.T, np.exp(numbers))


def a_folder(root, order) -> dict:
    """Eight patients with three images each, whose files are made and listed in the order given."""
    names = [f"p{patient}_{k}.png" for patient in range(8) for k in range(3)]
    root.mkdir()
    for i in order:
        Image.fromarray(np.full((20, 20), 9 * i, np.uint8)).save(root / names[i])
    rows = pd.DataFrame({"image": names, "label": [0, 1, 1] * 8, "who": [n.split("_")[0] for n in names]})
    rows.iloc[list(order)].to_csv(root / "labels.csv", index=False)
    return {"data_dir": root, "labels": root / "labels.csv", "image_column": "image", "patient_column": "who"}


def test_the_order_of_files_and_rows_moves_no_image_to_another_split(tmp_path):
    found = []
    for name, order in (("a", range(24)), ("b", np.random.default_rng(1).permutation(24).tolist())):
        options = a_folder(tmp_path / name, order)
        cohort = load("folder", **options, image_size=16, cache_dir=tmp_path / "cache", workers=1)
        found.append(dict(zip(cohort.table["image_id"], cohort.table["split"], strict=True)))
    assert found[0] == found[1] and set(found[0].values()) == {"train", "val", "test"}


def test_the_leakage_studys_splits_do_not_depend_on_row_order():
    from cxrlib.studies.leakage import split_by_image_and_by_patient

    table = pd.DataFrame({"image_id": [f"i{i:03d}" for i in range(120)], "label": [0, 1, 1] * 40})
    table = table.assign(patient_id=[f"p{i // 4}" for i in range(120)], split="train")
    cohort = Cohort(np.zeros((120, 2, 2), np.uint8), table)
    mixed = cohort.take(np.random.default_rng(2).permutation(120))
    for one, other in zip(*(split_by_image_and_by_patient(c, 5) for c in (cohort, mixed)), strict=True):
        splits = [c.table.set_index("image_id")["split"] for c in (one, other)]
        pd.testing.assert_series_equal(splits[0], splits[1].loc[splits[0].index])


def test_names_that_are_no_text_are_dealt_like_others():
    """A file's name is bytes; what is no UTF-8 comes from the system as lone surrogates."""
    from cxrlib.audit.stats import sample_patients

    names = [os.fsdecode(b"caf\xe9-%d" % i) for i in range(40)]
    assert set(patient_folds(names, 4)) == {0, 1, 2, 3}
    assert set(split_by_patient(names)) == {"train", "val", "test"}
    assert sample_patients(np.array(names), 10, seed=0).sum() == 10
