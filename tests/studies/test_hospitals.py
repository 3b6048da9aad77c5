"""Internal against external: what is compared, what is refused, and what the phantom hospitals are."""

from dataclasses import replace

import numpy as np
import pytest

from cxrlib.errors import DataError
from cxrlib.studies import hospitals, region_study


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    config = replace(region_study.NETWORKS["smoke"], epochs=8, batch_size=16, learning_rate=2e-3, dropout=0)
    monkeypatch.setitem(region_study.NETWORKS, "smoke", config)


def elsewhere(cohort, **changes):
    """The cohort as another hospital's: other ids."""
    table = cohort.table
    ids = {name: "other-" + table[name] for name in ("image_id", "patient_id")}
    return cohort.with_columns(**ids, **changes)


def test_a_hospital_that_calls_the_healthy_ill_has_the_mirrored_auc(blob_cohort, tmp_path):
    test = blob_cohort.split("test")
    external = {"the same": elsewhere(test), "B, mirrored": elsewhere(test, label=1 - test.labels)}
    found = hospitals.other_hospital(
        blob_cohort, external, "smoke", (0, 1), store=tmp_path, progress=False, replicates=200
    )
    n = found.numbers
    assert n["internal.test_auc"].value > 0.8
    assert n["the_same.auc"].value == pytest.approx(n["internal.test_auc"].value)
    assert n["B_mirrored.auc"].value == pytest.approx(1 - n["internal.test_auc"].value)
    assert n["B_mirrored.minus_internal"].high < 0
    assert n["B_mirrored.minus_internal.p_holm"].value < 0.01
    assert n["the_same.minus_internal"].low <= 0 <= n["the_same.minus_internal"].high
    assert list(found.runs["tested_on"].unique()) == ["internal", "the same", "B, mirrored"]


def test_cohorts_that_cannot_be_compared_are_refused(blob_cohort):
    def ask(external):
        return hospitals.other_hospital(blob_cohort, external, "smoke")

    other = elsewhere(blob_cohort)
    with pytest.raises(DataError, match="no other hospital"):
        ask({})
    with pytest.raises(DataError, match="not like those"):
        ask({"B": other.with_images(other.images[:, ::2, ::2])})
    with pytest.raises(DataError, match="not like those"):
        ask({"B": replace(other, info={"preprocess": {"fit": "stretch"}})})
    with pytest.raises(DataError, match="have the label 1"):
        ask({"B": other.take(other.labels == 1)})
    with pytest.raises(DataError, match="patients of B are also"):
        ask({"B": blob_cohort})


def test_the_phantom_hospitals_differ_in_what_they_say(tmp_path):
    home, others = hospitals.phantom_hospitals("smoke", 32, cache_dir=tmp_path, workers=1, progress=False)

    def lead(cohort):
        portable = cohort.table["portable"].to_numpy(dtype=float)
        return portable[cohort.labels == 1].mean() - portable[cohort.labels == 0].mean()

    assert not home.table["exposure"].any()
    assert lead(home) > 0.5
    assert others["hospital B"].table["exposure"].all()
    assert abs(lead(others["hospital B"])) < 0.3
    assert lead(others["other machines"]) > 0.4
    assert others["other machines"].table["exposure"].all()
    assert not others["other habits"].table["exposure"].any()
    patients = [set(one.patients) for one in (home, *others.values())]
    assert len(set.union(*patients)) == sum(map(len, patients))


def test_the_pipeline_makes_cohorts_comparable(blob_cohort, tmp_path):
    both = {"A": blob_cohort.take(np.arange(4)), "B": elsewhere(blob_cohort).take(np.arange(4))}
    made = hospitals.alike(both, 24, cache_dir=tmp_path, workers=1, progress=False)
    assert {one.images.shape for one in made.values()} == {(4, 24, 24)}
    assert made["A"].info["preprocess"] == made["B"].info["preprocess"]


def test_sites_become_cohorts_with_all_splits(blob_cohort):
    sites = np.where(np.arange(len(blob_cohort)) < 120, "east", "west")
    found = hospitals.by_site(blob_cohort.with_columns(site=sites))
    assert {name: len(one) for name, one in found.items()} == {"east": 120, "west": 120}
    assert all(set(one.table["split"]) == {"train", "val", "test"} for one in found.values())
    with pytest.raises(DataError, match="site"):
        hospitals.by_site(blob_cohort)
