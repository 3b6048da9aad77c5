"""Trainings that mix how images look."""

import numpy as np
import pytest
import torch

from cxrlib.errors import ConfigError, DataError
from cxrlib.training import TrainConfig
from cxrlib.training.invariance import Adversarial, AmplitudeExchange, HistogramExchange, MixStyle
from cxrlib.training.share import Share
from cxrlib.training.trainer import Trainer


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    dark, bright = rng.uniform(0, 60, (4, 1, 16, 16)), rng.uniform(150, 255, (4, 1, 16, 16))
    return torch.tensor(np.concatenate([dark, bright]), dtype=torch.float32)


def test_an_exchange_of_greys_keeps_the_order_of_pixels_and_takes_the_others_greys(images):
    own, other = images[:4], images[4:]
    mixed = HistogramExchange().mixed(own, other)
    assert torch.equal(mixed.flatten(1).argsort(1), own.flatten(1).argsort(1))
    assert torch.equal(mixed.flatten(1).sort(1).values, other.flatten(1).sort(1).values)


def test_an_exchange_of_amplitudes_takes_the_others_mean_and_keeps_fine_detail(images):
    own, other = images[:4] + 60, images[4:] - 60
    mixed = AmplitudeExchange(reach=0.1).mixed(own, other)
    assert mixed.mean(dim=(1, 2, 3)) == pytest.approx(other.mean(dim=(1, 2, 3)), rel=0.05)
    detail = [one - one.mean(dim=(2, 3), keepdim=True) for one in (mixed, own)]
    correlation = (detail[0] * detail[1]).sum() / (detail[0].norm() * detail[1].norm())
    assert correlation > 0.95


def test_an_exchange_changes_as_many_images_as_its_chance_says(images):
    many = images.repeat(100, 1, 1, 1)
    for chance, low, high in ((0.0, 0, 0), (0.5, 0.2, 0.55), (1.0, 0.45, 1.0)):  # one may be its own partner
        seen = HistogramExchange(chance).training_images(None, many, torch.Generator().manual_seed(0))
        changed = (seen != many).flatten(1).any(1).float().mean()
        assert low <= changed <= high
    with pytest.raises(ConfigError, match="chance"):
        HistogramExchange(1.5)


def fitted(cohort, change, model="residual"):
    config = TrainConfig(model=model, width=4, epochs=2, batch_size=16, augment=None)
    trainer = Trainer(config, [change])
    trainer.fit(cohort)
    return trainer


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.raw_model.parameters()])


def test_mixed_statistics_change_the_training_and_leave_no_hook_behind(blob_cohort):
    plain, mixed, again = (fitted(blob_cohort, MixStyle(chance=chance)) for chance in (0, 1, 1))
    assert torch.equal(weights(mixed), weights(again))
    assert not torch.allclose(weights(plain), weights(mixed))
    assert not any(module._forward_hooks for module in mixed.raw_model.modules())


def test_an_adversarial_head_is_trained_and_its_gradient_is_reversed(blob_cohort):
    known = blob_cohort.with_columns(machine=np.arange(len(blob_cohort)) % 3 == 0)
    none, some = (Adversarial("machine", weight) for weight in (0.0, 1.0))
    plain, against = (fitted(known, change) for change in (none, some))
    assert not torch.allclose(weights(plain), weights(against))
    assert not any(module._forward_pre_hooks for module in against.raw_model.modules())
    assert {"head", "optimizer"} == set(some.state())
    assert none.key(known) != some.key(known)
    other = known.with_columns(machine=np.arange(len(known)) % 2 == 0)
    assert some.key(known) != some.key(other)


def test_with_a_weight_of_zero_the_network_learns_as_if_there_were_no_head(blob_cohort):
    known = blob_cohort.with_columns(machine=np.arange(len(blob_cohort)) % 3 == 0)
    assert torch.allclose(
        weights(fitted(known, Adversarial("machine", 0.0))),
        weights(fitted(known, MixStyle(chance=0))),
        atol=1e-5,
    )


def test_mixed_statistics_need_a_network_with_stages(blob_cohort):
    with pytest.raises(ConfigError, match="stages of a residual network, and this is lenet"):
        fitted(blob_cohort, MixStyle(), model="lenet")


def test_a_column_that_an_adversary_is_to_tell_must_be_there_and_be_true_or_false(blob_cohort):
    with pytest.raises(DataError, match="no column 'machine'"):
        fitted(blob_cohort, Adversarial("machine"))
    with pytest.raises(DataError, match="neither true nor false"):
        fitted(blob_cohort.with_columns(machine=2), Adversarial("machine"))


@pytest.mark.parametrize(
    "change", [HistogramExchange(), AmplitudeExchange(), MixStyle(), Adversarial("machine")]
)
def test_a_batch_that_is_spread_over_devices_is_refused(blob_cohort, change):
    trainer = Trainer(TrainConfig(model="residual", width=4), [change])
    trainer._set_up(blob_cohort)
    trainer.share = Share(0, 2, 16)
    with pytest.raises(ConfigError, match="spread over devices"):
        change.on_fit_start(trainer)
