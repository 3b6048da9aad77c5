"""The networks are the ones that their names say."""

import pytest
import torch

from cxrlib.errors import CheckpointError, ConfigError
from cxrlib.training.models import MODELS, Halving, build, count_parameters


@pytest.mark.parametrize("name", MODELS)
def test_one_logit_an_image_from_raw_uint8(name):
    width = 4 if name == "double_conv" else None
    model = build(name, width=width, image_size=64).eval()
    images = torch.randint(0, 256, (2, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        assert model(images).shape == (2,)
        assert torch.equal(model(images), model(images.unsqueeze(1).float()))


def test_double_conv_has_the_originals_75_5_million_parameters():
    with torch.device("meta"):
        from cxrlib.training.models import DoubleConv

        assert round(count_parameters(DoubleConv()) / 1e6, 1) == 75.5


def test_densenet_has_chexnets_parameters():
    # 7,978,856 in the paper's three-channel, 1000-class form: less two input channels and 999 outputs.
    expected = 7_978_856 - 2 * 64 * 49 - 999 * 1025
    assert count_parameters(build("densenet121")) == expected


def test_the_normalisation_travels_with_the_weights():
    model = build("lenet", image_size=32)
    model.mean.fill_(100.0)
    model.std.fill_(50.0)
    assert model.state_dict()["mean"] == 100.0
    zero = torch.full((1, 32, 32), 100.0)
    assert torch.equal(model(zero), model.network(torch.zeros(1, 1, 32, 32)).squeeze(1))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "resnet999"}, "lenet, double_conv"),
        ({"name": "resnet18", "width": 8}, "fixed width"),
        ({"name": "lenet", "image_size": 8}, "at least 16"),
        ({"name": "double_conv", "image_size": 32}, "at least 64"),
        ({"name": "lenet", "dropout": 1.5}, "dropout is 1.5"),
        ({"name": "residual", "weights": "torchvision"}, "no weights for residual"),
    ],
)
def test_a_bad_request_says_what_would_do(arguments, said):
    with pytest.raises(ConfigError, match=said):
        build(**arguments)


def test_weights_from_a_local_file_come_back(tmp_path):
    from safetensors.torch import save_file

    model = build("lenet", image_size=32)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    save_file({k: v.contiguous() for k, v in model.network.state_dict().items()}, tmp_path / "w.safetensors")
    for file in ("w.pt", "w.safetensors"):
        again = build("lenet", image_size=32, weights=tmp_path / file)
        assert torch.equal(again.network[0].weight, model.network[0].weight)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(build("lenet", image_size=32).state_dict(), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="another network than residual"):
        build("residual", weights=tmp_path / "w.pt")


@pytest.mark.parametrize("shape", [(3, 6, 60, 60), (2, 4, 25, 27), (1, 1, 2, 3), (2, 16, 8, 8)])
def test_pooling_to_predict_gives_what_pooling_to_learn_gives_to_the_bit(shape):
    x = torch.randn(shape).mul(3).round().to(memory_format=torch.channels_last)  # with ties
    x[0, 0, 0, 1] = torch.nan
    with torch.inference_mode():
        found = Halving()(x)
    assert torch.allclose(found, torch.nn.MaxPool2d(2)(x), rtol=0, atol=0, equal_nan=True)
