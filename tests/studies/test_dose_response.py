"""Planted confounders: who gets them, what twins say, and that a network which goes by one is caught."""

from dataclasses import replace

import numpy as np
import pytest

from cxrlib.errors import ConfigError, DataError
from cxrlib.phantom import phantom
from cxrlib.phantom.latents import PhantomConfig
from cxrlib.studies import dose_response as doses
from cxrlib.studies import study
from cxrlib.studies.planting import Twins, flags, planted, twins
from cxrlib.training.callbacks import Callback


@pytest.fixture(scope="module")
def cohort():
    return phantom.load(260, image_size=32, seed=3, config=PhantomConfig().unconfounded())


@pytest.fixture
def quick(monkeypatch):
    config = replace(doses.DOSES["smoke"].network, epochs=8, batch_size=16, learning_rate=2e-3, dropout=0)
    monkeypatch.setitem(doses.DOSES, "smoke", doses.Doses(150, (0.5, 1.0), config, 5, 0.5))


def test_the_agreement_is_a_share_of_each_class_in_each_split(cohort):
    present = flags(cohort, 0.9)
    for split in ("train", "val", "test"):
        rows = (cohort.table["split"] == split).to_numpy()
        for label, share in ((1, 0.9), (0, 0.1)):
            of_class = rows & (cohort.labels == label)
            assert abs(present[of_class].sum() - share * of_class.sum()) < 0.51


def test_who_has_it_follows_from_ids_and_grows_with_the_agreement(cohort):
    order = np.random.default_rng(0).permutation(len(cohort))
    assert (flags(cohort.take(order), 0.8) == flags(cohort, 0.8)[order]).all()
    weak, strong, ill = flags(cohort, 0.6), flags(cohort, 0.95), cohort.labels == 1
    assert (strong[ill] >= weak[ill]).all()
    assert (strong[~ill] <= weak[~ill]).all()
    with pytest.raises(ConfigError, match="agreement"):
        flags(cohort, 1.2)


@pytest.mark.parametrize("confounder", ["projection", "exposure"])
def test_planting_gives_what_rendering_every_twin_would(cohort, confounder):
    few = cohort.take(np.arange(8))
    present = np.arange(8) % 2 == 0
    made, whole = planted(few, confounder, present), phantom.twin(few, **{confounder: present})
    assert np.array_equal(made.images, whole.images)
    assert np.array_equal(made.lung_masks, whole.lung_masks)
    assert made.table[["view", "site", confounder]].equals(whole.table[["view", "site", confounder]])


def test_twins_are_the_same_image_without_and_with_it(cohort):
    few = cohort.take(np.arange(6))
    without, present = twins(few, "marker")
    now = few.table["marker"].to_numpy()
    assert np.array_equal(np.where(now[:, None, None], present, without), few.images)
    assert (without != present).any(axis=(1, 2)).all()


def test_only_phantoms_can_be_planted_and_only_with_what_they_know(cohort, blob_cohort):
    with pytest.raises(ConfigError, match="no phantom"):
        planted(blob_cohort, "marker", np.zeros(len(blob_cohort), bool))
    with pytest.raises(ConfigError, match="necklace"):
        twins(cohort, "necklace")
    with pytest.raises(DataError, match="flags"):
        planted(cohort, "marker", [True])


def seen(without, present, labels=(1, 1, 0, 0), flagged=(1, 1, 0, 0)):
    patients = np.array([f"p{i}" for i in range(len(labels))])
    rows = [np.atleast_2d(np.asarray(one, dtype=float)) for one in (without, present)]
    return Twins(np.array(labels), patients, *rows, np.array(flagged, dtype=bool), replicates=50)


def test_a_network_that_reads_the_confounder_alone():
    found = seen([0.1] * 4, [0.9] * 4)
    assert [found.auc(where).values[0] for where in ("holds", "absent", "reversed")] == [1, 0.5, 0]
    assert found.flips().values[0] == found.towards_ill().values[0] == 1


def test_a_network_that_does_not_look_at_it():
    found = seen([0.9, 0.6, 0.2, 0.1], [0.9, 0.6, 0.2, 0.1])
    assert [found.auc(where).values[0] for where in ("holds", "absent", "reversed")] == [1, 1, 1]
    assert found.flips().values[0] == 0


def test_flips_by_hand_at_two_thresholds_and_two_seeds():
    found = seen([[0.4, 0.6, 0.1, 0.3]] * 2, [[0.6, 0.4, 0.2, 0.45]] * 2)
    assert found.flips().values == pytest.approx([2 / 4, 2 / 4])
    assert found.towards_ill().values == pytest.approx([1 / 4, 1 / 4])
    assert found.flips([0.5, 0.44]).values == pytest.approx([2 / 4, 3 / 4])
    with pytest.raises(ConfigError, match="sideways"):
        found.auc("sideways")


def test_what_a_network_learns_from_a_planted_border_turns_against_it(cohort, quick, tmp_path):
    found = doses.dose_response(
        cohort, "smoke", (0, 1), confounder="collimation", store=tmp_path, progress=False, replicates=200
    )
    numbers = found.numbers
    assert numbers["collimation_100.auc_holds"].value > 0.9
    assert numbers["collimation_100.auc_reversed"].high < 0.5
    assert numbers["collimation_100.flips"].low > 0.5
    assert numbers["collimation_50.flips"].value < numbers["collimation_100.flips"].low
    independent = found.runs[found.runs["agreement"] == 0.5]
    assert (independent["auc_holds"] - independent["auc_reversed"]).abs().max() < 0.2
    assert all(np.isfinite(e.value) for e in numbers.values())


def test_a_border_is_learned_before_a_letter_and_a_stored_study_reads_the_same(
    cohort, quick, tmp_path, monkeypatch
):
    options = {
        "confounders": ("marker", "collimation"),
        "store": tmp_path,
        "progress": False,
        "replicates": 50,
    }
    first = doses.order_of_learning(cohort, "smoke", **options)
    assert first.numbers["collimation.rank"].value == 1
    assert first.numbers["collimation.pull"].low > first.numbers["marker.pull"].high
    assert "collimation.steps_to_half" in first.numbers
    steps = []

    class Counted(Callback):
        def on_step_end(self, trainer):
            steps.append(trainer.step)

    original = study.train_or_load
    monkeypatch.setattr(study, "train_or_load", lambda c, g, s, b: original(c, g, s, [*b, Counted()]))
    again = doses.order_of_learning(cohort, "smoke", **options)
    assert not steps
    assert again.runs.equals(first.runs)
