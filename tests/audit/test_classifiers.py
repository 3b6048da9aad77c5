"""A classifier is run however it is given, and what is wrong with it is named."""

import importlib.util

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cxrlib.audit.classifiers import Feed, load_classifier, read_scores
from cxrlib.errors import ConfigError, DataError
from cxrlib.training.checkpoints import save_checkpoint
from cxrlib.training.config import TrainConfig
from cxrlib.training.trainer import Trainer


class MeanGrey(nn.Module):
    """The mean of what it is given: (N, C, H, W) -> (N, 1)."""

    def forward(self, x):
        return x.mean((1, 2, 3))[:, None]


class Two(nn.Module):
    def forward(self, x):
        mean = x.mean((1, 2, 3))
        return torch.stack([1 - mean, mean], 1)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 40, 40), dtype=np.uint8)


def exported(tmp_path, kind, module=None, channels=1, size=40):
    module, given = (module or MeanGrey()).eval(), torch.zeros(2, channels, size, size)
    path = tmp_path / f"model{kind}"
    if kind == ".pt":
        torch.jit.trace(module, given).save(path)
    elif kind == ".pt2":
        torch.export.save(
            torch.export.export(module, (given,), dynamic_shapes=({0: torch.export.Dim("n", min=1)},)), path
        )
    else:
        pytest.importorskip("onnxscript")
        torch.onnx.export(
            module, (given,), path, dynamic_axes={"x": {0: "n"}}, input_names=["x"], dynamo=False
        )
    return str(path)


@pytest.mark.parametrize("kind", [".pt", ".pt2", ".onnx"])
def test_a_file_is_run_on_greys_from_0_to_1(tmp_path, images, kind):
    scores = load_classifier(exported(tmp_path, kind))(images)
    assert scores == pytest.approx(images.mean((1, 2)) / 255, abs=1e-5)


@pytest.mark.parametrize(
    ("value_range", "low", "high"), [("0-255", 0, 255), ("-1-1", -1, 1), ("xrv", -1024, 1024)]
)
def test_a_range_is_that_of_its_library(tmp_path, value_range, low, high):
    score = load_classifier(exported(tmp_path, ".pt"), Feed(value_range=value_range))
    images = np.stack([np.zeros((40, 40), np.uint8), np.full((40, 40), 255, np.uint8)])
    assert score(images) == pytest.approx([low, high], abs=1e-3)


def test_imagenets_range_is_torchvisions_normalize(tmp_path, images):
    from torchvision.transforms.functional import normalize

    score = load_classifier(exported(tmp_path, ".pt", channels=3), Feed(value_range="imagenet", channels=3))
    grey = torch.from_numpy(images)[:, None].repeat(1, 3, 1, 1) / 255
    wanted = normalize(grey, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]).mean((1, 2, 3))
    assert score(images) == pytest.approx(wanted.numpy(), abs=1e-5)


def test_images_are_brought_to_the_size_that_the_network_wants(tmp_path, images):
    score = load_classifier(exported(tmp_path, ".onnx", size=24))
    assert score(images) == pytest.approx(images.mean((1, 2)) / 255, abs=0.01)


def test_of_two_outputs_the_last_means_ill_and_another_can_be_named(tmp_path, images):
    path, mean = exported(tmp_path, ".pt", Two()), images.mean((1, 2)) / 255
    assert load_classifier(path)(images) == pytest.approx(mean, abs=1e-5)
    assert load_classifier(path, Feed(output=0))(images) == pytest.approx(1 - mean, abs=1e-5)


def test_our_own_checkpoint_gives_what_predict_gives(tmp_path, blob_cohort):
    from cxrlib.training.inference import load_model, predict

    trainer = Trainer(TrainConfig(model="lenet", epochs=1), [])
    trainer.fit(blob_cohort)
    save_checkpoint(tmp_path / "best.pt", trainer.state())
    images = blob_cohort.images[:6]
    wanted = predict(load_model(tmp_path / "best.pt")[0], images)
    assert load_classifier(str(tmp_path / "best.pt"))(images) == pytest.approx(wanted, abs=1e-6)


def test_a_function_is_imported(tmp_path, monkeypatch, images):
    (tmp_path / "of_mine.py").write_text("def score(images):\n    return images.mean((1, 2))\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_classifier("of_mine:score")(images) == pytest.approx(images.mean((1, 2)))
    with pytest.raises(ConfigError, match="of_mine:scores cannot be imported"):
        load_classifier("of_mine:scores")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("images[:, 0, 0] * float('nan')", "score that is no number"),
        ("images", "answers with the shape"),
        ("images.mean()", "answers with the shape"),
        ("images[0, 1, 2, 3]", "failed on images of 40 × 40"),
    ],
)
def test_a_wrong_answer_is_named(tmp_path, monkeypatch, images, body, said):
    name = f"wrong_{abs(hash(body))}"
    (tmp_path / f"{name}.py").write_text(f"def score(images):\n    return {body}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match=said):
        load_classifier(f"{name}:score")(images)


def test_a_file_that_is_no_network_is_named(tmp_path):
    for name in ("a.onnx", "a.pt2", "a.pt", "a.txt"):
        (tmp_path / name).write_bytes(b"no network")
        with pytest.raises(ConfigError, match=name):
            load_classifier(str(tmp_path / name))
    with pytest.raises(ConfigError, match="There is no file"):
        load_classifier(str(tmp_path / "gone.onnx"))


def test_weights_alone_are_no_network(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(Exception, match=r"weights\.pt"):
        load_classifier(str(tmp_path / "weights.pt"))


@pytest.mark.skipif(importlib.util.find_spec("torchxrayvision") is None, reason="needs torchxrayvision")
def test_a_network_of_torchxrayvision_that_does_not_exist_is_named():
    with pytest.raises(ConfigError, match="cannot give the network 'densenet-nonsense'"):
        load_classifier("xrv:densenet-nonsense")


# --- scores ---


def scores_csv(tmp_path, **columns):
    path = tmp_path / "scores.csv"
    pd.DataFrame({"image": ["a.png", "b.png", "c.png"], **columns}).to_csv(path, index=False)
    return path


def test_scores_are_put_in_the_images_order(tmp_path):
    path = scores_csv(tmp_path, ours=[0.1, 0.2, 0.3], theirs=[3, 2, 1])
    found = read_scores(path, np.array(["c.png", "a.png"]))
    assert found["ours"].tolist() == [0.3, 0.1] and found["theirs"].tolist() == [1, 3]
    # ids that are paths, where the scores name files
    assert read_scores(path, np.array(["x/b.png", "y/a.png"]))["ours"].tolist() == [0.2, 0.1]


@pytest.mark.parametrize(
    ("columns", "ids", "said"),
    [
        ({"ours": [0.1, "?", 0.3]}, ["a.png", "b.png"], "column 'ours' has 1 values"),
        ({"ours": [0.1, 0.2, 0.3]}, ["a.png", "d.png"], "no score for 1 of 2 images"),
        ({"ours": [0.5, 0.5, 0.5]}, ["a.png", "b.png"], "every image the score 0.5"),
        ({}, ["a.png"], "has the columns image"),
    ],
)
def test_scores_that_cannot_be_used_are_named(tmp_path, columns, ids, said):
    with pytest.raises(DataError, match=said):
        read_scores(scores_csv(tmp_path, **columns), np.array(ids))


def test_an_image_with_two_scores_is_named(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("image,ours\na.png,1\na.png,2\n")
    with pytest.raises(DataError, match="names images twice"):
        read_scores(path, np.array(["a.png"]))
