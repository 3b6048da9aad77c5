"""A classifier is run however it is given, and what is wrong with it is named."""

import importlib.util

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cxrlib.audit.classifiers import Feed, Scorer, load_classifier
from cxrlib.audit.scores import read_scores
from cxrlib.errors import CheckpointError, ConfigError, DataError
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


class Squeezed(nn.Module):
    """An answer without an axis of images, as x.squeeze() leaves of one image."""

    def forward(self, x):
        return x.mean((1, 2, 3)).squeeze()


def exported(tmp_path, kind, module=None, channels=1, size=40, fixed=None):
    module, given = (module or MeanGrey()).eval(), torch.zeros(fixed or 2, channels, size, size)
    path = tmp_path / f"model{kind}"
    if kind == ".pt":
        torch.jit.trace(module, given).save(path)
    elif kind == ".pt2":
        free = None if fixed else ({0: torch.export.Dim("n", min=1)},)
        torch.export.save(torch.export.export(module, (given,), dynamic_shapes=free), path)
    else:
        pytest.importorskip("onnxscript")
        free = None if fixed else {"x": {0: "n"}}
        torch.onnx.export(module, (given,), path, dynamic_axes=free, input_names=["x"], dynamo=False)
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


@pytest.mark.parametrize("kind", [".pt2", ".onnx"])
@pytest.mark.parametrize(("fixed", "module"), [(1, MeanGrey), (1, Squeezed), (3, MeanGrey), (3, Two)])
def test_a_file_for_a_fixed_number_of_images_is_fed_so_many_at_a_time(tmp_path, images, kind, fixed, module):
    score = load_classifier(exported(tmp_path, kind, module(), fixed=fixed))
    assert score(images) == pytest.approx(images.mean((1, 2)) / 255, abs=1e-5)
    assert score(images[:1]) == pytest.approx(images[:1].mean((1, 2)) / 255, abs=1e-5)


def test_a_pt2_file_says_its_size(tmp_path, images):
    score = load_classifier(exported(tmp_path, ".pt2", size=24))
    assert score.size == 24 and score(images) == pytest.approx(images.mean((1, 2)) / 255, abs=0.01)


def answering(rows, output=None):
    """A classifier that answers with these rows, the first for the darkest image."""
    return Scorer("net", lambda batch: np.asarray(rows)[batch[:, 0, 0]], None, output)


def numbered(*numbers):
    return np.array(numbers, np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)


def test_two_columns_give_a_probability_and_say_which_was_taken():
    logits = np.random.default_rng(0).normal(0, 3, (50, 2)).astype(np.float32)
    shares = torch.softmax(torch.from_numpy(logits), 1).numpy()
    assert (shares.sum(1) != 1).any()  # rounded, as a network's are
    given = numbered(*range(50))
    for output, at in ((None, 1), (1, 1), (-1, 1), (0, 0)):
        for rows, how in ((shares, "probability"), (logits, "softmax")):
            score = answering(rows, output)
            assert score(given) == pytest.approx(shares[:, at], abs=1e-6)
            assert score.taken == {"column": at, "of": 2, "how": how}
    # infinite log probabilities, of a network that is sure
    with np.errstate(divide="ignore"):
        score = answering(np.log([[1, 0], [0.5, 0.5], [0, 1]]))
    assert score(numbered(0, 1, 2)) == pytest.approx([0, 0.5, 1])


def test_what_two_columns_are_is_settled_by_the_first_images():
    score = answering([[0.5, 0.5], [-1, 1], [0.25, 0.75]])
    score(numbered(0, 1))
    assert score(numbered(2)) == pytest.approx(1 / (1 + np.exp(-0.5)))  # logits, though they sum to 1


def test_one_column_is_taken_as_it_is_and_of_many_the_one_that_is_named():
    score = answering([[-3.0], [2.0]])
    assert score(numbered(0, 1)).tolist() == [-3, 2] and not score.taken
    score = answering([[0.1, 5, 9], [0.2, 7, 9]], 1)
    assert score(numbered(0, 1)).tolist() == [5, 7]
    assert score.taken == {"column": 1, "of": 3, "how": "as it is"}
    assert answering([[0.1, 0.2], [0.9, 0.7]], 0)(numbered(0, 1)).tolist() == [0.1, 0.9]


@pytest.mark.parametrize(
    ("rows", "output", "said"),
    [
        ([[0.9, 0.9], [0.1, 0.2]], None, "two columns of numbers from 0 to 1 that do not sum to 1"),
        ([[1, 2, 3], [4, 5, 6]], None, r"the shape \(2, 3\)"),
        ([[1, 2, 3], [4, 5, 6]], 3, "and --model-output is 3"),
        ([[1, 2, 3], [4, 5, 6]], -4, "and --model-output is -4"),
        ([1, 2], 1, "and --model-output is 1"),
    ],
)
def test_columns_that_cannot_be_told_ask_for_the_output(rows, output, said):
    with pytest.raises(DataError, match=rf"(?s){said}.*--model-output"):
        answering(rows, output)(numbered(0, 1))


def test_an_output_of_a_function_is_taken(tmp_path, monkeypatch, images):
    (tmp_path / "of_two.py").write_text(
        "def score(x):\n    return [[one.mean() / 255, 1 - one.mean() / 255] for one in x]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert load_classifier("of_two:score", Feed(output=0))(images) == pytest.approx(images.mean((1, 2)) / 255)


def test_our_own_checkpoint_gives_what_predict_gives(tmp_path, blob_cohort):
    from cxrlib.training.inference import load_model, predict

    trainer = Trainer(TrainConfig(model="lenet", epochs=1), [])
    trainer.fit(blob_cohort)
    save_checkpoint(tmp_path / "best.pt", trainer.state())
    images = blob_cohort.images[:6]
    wanted = predict(load_model(tmp_path / "best.pt")[0], images)
    assert load_classifier(str(tmp_path / "best.pt"))(images) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    ("spec", "feed", "option"),
    [
        ("some:function", Feed(size=96), "--model-size"),
        ("some:function", Feed(value_range="imagenet"), "--model-range"),
        ("xrv:densenet121-res224-all", Feed(channels=3), "--model-channels"),
    ],
)
def test_a_setting_that_would_change_nothing_is_refused(spec, feed, option):
    with pytest.raises(ConfigError, match=f"{option} would change nothing for {spec}"):
        load_classifier(spec, feed)


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


@pytest.mark.parametrize("nested", [False, True])
def test_weights_alone_are_no_network_and_the_remedy_says_how_to_export_one(tmp_path, nested):
    weights = nn.Linear(2, 2).state_dict()
    torch.save({"epoch": 3, "state_dict": weights} if nested else weights, tmp_path / "weights.pt")
    with pytest.raises(
        ConfigError, match=r"(?s)weights\.pt is a state dict: weights without.*torch\.onnx\.exp"
    ):
        load_classifier(str(tmp_path / "weights.pt"))


def test_a_pickled_module_is_not_opened_and_the_remedy_says_how_to_export_one(tmp_path):
    torch.save(MeanGrey(), tmp_path / "whole.pt")
    with pytest.raises(ConfigError) as said:
        load_classifier(str(tmp_path / "whole.pt"))
    assert "MeanGrey" in said.value.message and "as torch.save(model) writes" in said.value.message
    assert "torch.onnx.export(" in said.value.remedy and "package.module:function" in said.value.remedy
    assert "x1b" not in str(said.value) and "train again" not in str(said.value)


def test_a_checkpoint_of_ours_that_cannot_be_used_is_no_state_dict(tmp_path):
    save_checkpoint(tmp_path / "best.pt", {"model": {}})
    with pytest.raises(CheckpointError, match="does not hold a network of cxrlib"):
        load_classifier(str(tmp_path / "best.pt"))


def test_a_wrong_size_is_told_with_what_was_got_and_what_was_expected(tmp_path, images):
    wide = nn.Sequential(nn.Flatten(), nn.Linear(24 * 24, 1))
    with pytest.raises(DataError, match=r"Got: 40 Expected: 24"):
        load_classifier(exported(tmp_path, ".onnx", wide, size=24), Feed(size=40))(images)
    with pytest.raises(DataError, match=r"shapes cannot be multiplied \(5x1600 and 576x1\)") as said:
        load_classifier(exported(tmp_path, ".pt", wide, size=24))(images)
    assert "give --model-size" in said.value.remedy and "Traceback" not in str(said.value)


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
