"""Trainings kept from a shortcut: what they draw, weigh and paint, and that it helps where truth is known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from cxrlib.cohort import Cohort
from cxrlib.errors import ConfigError, DataError
from cxrlib.studies.study import PLAIN, train
from cxrlib.training.callbacks import Callback, Checkpoint
from cxrlib.training.inference import predict
from cxrlib.training.robust import (
    GroupBalanced,
    GroupDRO,
    RandomMarks,
    group_weights,
    groups_of,
    retrain_last_layer,
)
from cxrlib.training.share import ALL
from cxrlib.training.trainer import Trainer

CONFIG = replace(PLAIN, epochs=6, batch_size=32, width=4, check_ins=0.5)


def squares(n=600, agreement=0.95, seed=0):
    """A faint blob in the middle means disease; a bright square in the corner goes along with it."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    square = rng.random(n) < np.where(labels == 1, agreement, 1 - agreement)
    images = rng.normal(90, 20, (n, 24, 24))
    images[:, 9:15, 9:15] += 14 * labels[:, None, None]
    images[:, 1:5, 1:5] += 110 * square[:, None, None]
    table = pd.DataFrame(
        {
            "image_id": np.arange(n),
            "patient_id": np.arange(n),
            "label": labels,
            "square": square,
            "split": np.where(np.arange(n) % 5 < 3, "train", "val"),
        }
    )
    return Cohort(images.clip(0, 255).astype(np.uint8), table, name="squares")


@pytest.fixture(scope="module")
def confounded():
    return squares()


@pytest.fixture(scope="module")
def fresh():
    return squares(800, agreement=0.5, seed=9)


@pytest.fixture(scope="module")
def naive(confounded, tmp_path_factory):
    return train(confounded, CONFIG, tmp_path_factory.mktemp("naive")).last


def worst_group(model, cohort):
    right = (predict(model, cohort.images) > 0.5) == (cohort.labels == 1)
    groups = groups_of(cohort, "square")
    return min(right[groups == group].mean() for group in range(4))


def toy(labels, flags):
    n = len(labels)
    table = pd.DataFrame({"image_id": range(n), "patient_id": range(n), "label": labels, "split": "train"})
    return Cohort(np.zeros((n, 8, 8), np.uint8), table.assign(flag=flags))


def test_groups_are_label_and_flag():
    assert groups_of(toy([0, 0, 1, 1], [False, True, False, True]), "flag").tolist() == [0, 1, 2, 3]


def test_weights_by_hand():
    # groups of 3, 1 and 2 rows: each gets a third
    weights = group_weights(np.array([0, 0, 0, 1, 3, 3]))
    assert weights == pytest.approx([1 / 9, 1 / 9, 1 / 9, 1 / 3, 1 / 6, 1 / 6])
    assert weights.sum() == pytest.approx(1)


def test_a_flag_that_is_no_flag_is_named():
    with pytest.raises(DataError, match="'maybe'"):
        groups_of(toy([0, 1], ["maybe", 0]), "flag")
    with pytest.raises(DataError, match="'flap'"):
        groups_of(toy([0, 1], [0, 1]), "flap")


class Watch(Callback):
    def __init__(self):
        self.rows = []

    def training_loss(self, trainer, losses, rows, loss):
        self.rows.extend(rows.tolist())
        return loss


def test_balanced_training_sees_every_group_equally_often(confounded):
    watch = Watch()
    trainer = Trainer(replace(CONFIG, epochs=4), [GroupBalanced("square"), watch])
    trainer.fit(confounded)
    seen = np.bincount(groups_of(confounded.split("train"), "square")[watch.rows], minlength=4)
    assert seen / seen.sum() == pytest.approx([0.25] * 4, abs=0.04)
    assert len(watch.rows) == 4 * trainer.steps_per_epoch * 32


def test_without_a_change_rows_images_and_loss_are_the_usual_ones(confounded, naive):
    class Nothing(Callback):
        pass

    trainer = Trainer(CONFIG, [Nothing(), Watch()])
    trainer.fit(confounded)
    for ours, theirs in zip(trainer.model.parameters(), naive.parameters(), strict=True):
        assert torch.equal(ours, theirs)


class _Stand:
    """What GroupDRO needs of a trainer."""

    share = ALL

    def __init__(self, cohort):
        self.train_part = cohort


def test_group_dro_by_hand():
    dro = GroupDRO("flag", step=0.5)
    dro.on_fit_start(_Stand(toy([0, 0, 1, 1], [0, 1, 0, 1])))
    losses = torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64)
    loss = dro.training_loss(None, losses, np.array([0, 0, 3]), None)
    # means: group 0 has (1 + 3) / 2 = 2, group 3 has 2, groups 1 and 2 are not in the batch
    grown = np.array([np.e, 1, 1, np.e])
    q = grown / grown.sum()
    assert dro.weights.numpy() == pytest.approx(q)
    assert float(loss) == pytest.approx(2 * q[0] + 2 * q[3])
    dro.training_loss(None, torch.tensor([4.0]), np.array([1]), None)
    q = q * np.exp([0, 2, 0, 0])
    assert dro.weights.numpy() == pytest.approx(q / q.sum())


def test_a_group_that_does_not_occur_has_no_weight():
    dro = GroupDRO("flag")
    dro.on_fit_start(_Stand(toy([0, 0, 1], [0, 1, 0])))
    assert dro.weights.numpy() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])


class PowerCut(Callback):
    def on_step_end(self, trainer):
        if trainer.step == 15:
            raise RuntimeError("power cut")


def test_a_killed_group_dro_training_with_marks_ends_the_same(confounded, tmp_path):
    def changes():
        return [GroupDRO("square", 0.2), RandomMarks()]

    config = replace(CONFIG, epochs=3)
    whole = Trainer(config, [*changes(), Checkpoint(4)], tmp_path / "a")
    whole.fit(confounded)
    with pytest.raises(RuntimeError, match="power cut"):
        Trainer(config, [*changes(), Checkpoint(4), PowerCut()], tmp_path / "b").fit(confounded)
    resumed = Trainer(config, [*changes(), Checkpoint(4)], tmp_path / "b")
    resumed.fit(confounded, resume=True)
    assert torch.equal(whole.callbacks[0].weights, resumed.callbacks[0].weights)
    for ours, theirs in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_trainings_with_and_without_a_change_are_kept_apart(confounded, naive, tmp_path):
    config = replace(CONFIG, epochs=1)
    kinds = [(), (GroupBalanced("square"),), (GroupDRO("square"),), (RandomMarks(),), (RandomMarks(0.9),)]
    for kind in kinds:
        train(confounded, config, tmp_path, changes=kind)
    assert len(list(tmp_path.rglob("last.pt"))) == len(kinds)


@pytest.mark.parametrize("change", [GroupBalanced("square"), GroupDRO("square")])
def test_balancing_and_group_dro_raise_the_worst_group(change, confounded, naive, fresh, tmp_path):
    before = worst_group(naive, fresh)
    assert before < 0.75  # the shortcut is taken
    after = worst_group(train(confounded, CONFIG, tmp_path, changes=[change]).last, fresh)
    assert after > before + 0.1


def test_a_new_last_layer_raises_the_worst_group(confounded, naive, fresh):
    robust = retrain_last_layer(naive, confounded.split("val"), "square")
    assert worst_group(robust, fresh) > worst_group(naive, fresh) + 0.1
    changed = [
        name
        for (name, a), b in zip(naive.named_parameters(), robust.parameters(), strict=True)
        if not torch.equal(a, b)
    ]
    assert len(changed) == 2  # weight and bias of one layer


def test_a_last_layer_needs_every_group(confounded, naive):
    rows = groups_of(confounded, "square") != 2
    with pytest.raises(DataError, match="ill, without"):
        retrain_last_layer(naive, confounded.take(rows), "square")


def test_marks_lie_in_the_outer_band_and_in_about_the_share_asked_for():
    images = torch.full((400, 1, 64, 64), 60.0)
    painted = RandomMarks(chance=0.5, most=1, band=0.15).paint(images, torch.Generator().manual_seed(0))
    assert torch.equal(images, torch.full((400, 1, 64, 64), 60.0))
    touched = (painted != images).flatten(1).any(1).float().mean()
    assert float(touched) == pytest.approx(0.5, abs=0.08)
    assert not (painted != images)[:, :, 22:42, 22:42].any()
    assert (painted >= 60).all() and (painted <= 255).all()


def test_marks_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="makes no sense"):
        RandomMarks(smallest=0.3, largest=0.1)
