"""What pixels show and what a score follows are told with the label held fixed."""

import numpy as np
import pandas as pd
import pytest

from cxrlib.audit.interventions import INTERVENTIONS, Scene, intervene
from cxrlib.audit.probes import Finding
from cxrlib.audit.ridge import Turned, turned
from cxrlib.audit.rules import PROBES
from cxrlib.audit.use import Told, attribute, auc_within, by_level, eye, told, use, worst_group
from cxrlib.audit.verdicts import Asked, Use
from cxrlib.evaluation.metrics import Estimate

N = 600


@pytest.fixture(scope="module")
def cases():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, N)
    letter = rng.random(N) < np.where(labels == 1, 0.9, 0.1)
    patients = np.array([f"p{i // 2}" for i in range(N)])
    return rng, labels, letter.astype(float), patients


def quick(function, *arguments):
    return function(*arguments, permutations=199)


def test_an_invisible_column_that_goes_with_the_label_is_not_visible(cases):
    rng, labels, ward, patients = cases
    pixels = np.column_stack(
        [labels * 2 + rng.normal(size=N), rng.normal(size=(N, 5))]
    )  # they show the disease
    assert quick(told, pixels, ward, labels, patients).p_value > 0.05
    shown = np.column_stack([pixels, ward + rng.normal(size=N)])
    found = quick(told, shown, ward, labels, patients)
    assert found.p_value < 0.01 and found.concordance.low > 0.6
    # of two normal draws a unit apart the larger is right in 76% of pairs
    assert found.concordance.value == pytest.approx(0.76, abs=0.05)


def test_of_several_eyes_the_best_counts_and_p_pays_for_the_choice(cases):
    _, labels, ward, patients = cases
    rng = np.random.default_rng(5)
    blind = [rng.normal(size=(N, 4)) for _ in range(6)]
    sees = ward[:, None] + rng.normal(size=(N, 1))
    both, alone = (quick(told, one, ward, labels, patients) for one in ([*blind, sees], sees))
    assert both.concordance == alone.concordance and both.p_value < 0.01
    each = [quick(told, one, ward, labels, patients) for one in blind]
    together = quick(told, blind, ward, labels, patients)
    assert together.explained == max(one.explained for one in each)
    assert together.p_value > min(one.p_value for one in each)


def test_a_score_that_knows_the_disease_only_follows_no_letter(cases):
    rng, labels, letter, patients = cases
    found = attribute(letter[:, None], labels, pd.Series(letter))
    honest = quick(use, found, labels + rng.normal(size=N), labels, patients)
    assert honest.p_value > 0.05 and honest.concordance.value == pytest.approx(0.5, abs=0.06)
    short = quick(use, found, letter + rng.normal(size=N), labels, patients)
    assert short.p_value < 0.01 and min(short.healthy, short.ill) > 0.65
    assert short.explained > honest.explained


def test_a_number_is_followed_over_its_whole_range(cases):
    rng, labels, _, patients = cases
    age = rng.normal(50, 15, N)
    found = attribute(age[:, None], labels, pd.Series(age))
    followed = quick(use, found, age / 15 + rng.normal(size=N), labels, patients)
    # Kendall: two normals with correlation r agree in order with chance 1/2 + arcsin(r)/pi
    assert followed.concordance.value == pytest.approx(0.75, abs=0.04)


def test_a_patients_differences_are_turned_together(cases):
    rng, labels, letter, patients = cases
    (signs,) = turned(len(np.unique(patients)), 50, [0, 78])
    assert set(np.unique(signs)) == {-1, 1}
    assert abs(signs.mean()) < 0.05
    eyes = [eye(rng.normal(size=(N, 4)) + letter[:, None], labels, patients) for _ in range(2)]
    values = rng.normal(size=N)
    for label in (0, 1):
        values[labels == label] -= values[labels == label].mean()
    (found,) = Turned(values, eyes).drawn(50, [0, 78])
    # The same, image by image.
    block = values[:, None] * signs[np.unique(patients, return_inverse=True)[1]]
    best = np.full(50, -1.0)
    for one in eyes:
        for column in range(50):
            target = block[:, column].copy()
            for label in (0, 1):
                target[labels == label] -= target[labels == label].mean()
            predicted = one.predicted(target)
            for label in (0, 1):
                predicted[labels == label] -= predicted[labels == label].mean()
            best[column] = max(best[column], np.corrcoef(target, predicted)[0, 1])
    np.testing.assert_allclose(found, best, atol=1e-5)


def test_patients_with_as_many_images_as_nobody_else_count_too():
    rng = np.random.default_rng(1)
    images = np.arange(2, 42)  # of 40 patients, none with as many as another
    patients = np.repeat([f"p{n}" for n in images], images)
    bedside = np.repeat(rng.permutation(np.arange(40) % 2), images).astype(float)
    labels = (np.arange(len(patients)) % 3 == 0).astype(int)
    found = attribute(bedside[:, None], labels, pd.Series(bedside))
    apart = 0.3 * np.repeat(rng.normal(size=40), images)
    assert quick(use, found, bedside + apart, labels, patients).p_value < 0.02
    chance = [
        quick(use, found, np.repeat(rng.normal(size=40), images), labels, patients).p_value for _ in range(20)
    ]
    assert np.mean(np.array(chance) < 0.05) <= 0.2  # 5% of 20, and three standard errors


def test_levels_tell_where_the_classifier_fails():
    labels = np.array([1, 1, 0, 0] * 30)
    letter = np.array([1.0, 0, 1, 0] * 30)
    found = attribute(letter[:, None], labels, pd.Series(letter.astype(int)))
    scores = letter * 0.9 + 0.01 * labels
    rows = by_level(found, scores, labels, 0.5)
    assert {row["level"]: row["sensitivity"]["value"] for row in rows} == {"1": 1.0, "0": 0.0}
    assert {row["level"]: row["specificity"]["value"] for row in rows} == {"1": 0.0, "0": 1.0}
    assert auc_within(found, scores, labels) == 1.0
    assert worst_group({"letter": rows})["value"] == 0.0


# --- interventions ---


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(1)
    images = rng.integers(60, 120, (60, 64, 64), dtype=np.uint8)
    labels = np.repeat([0, 1], 30)
    masks = np.zeros((60, 64, 64), np.uint8)
    masks[:, 16:48, 12:28] = masks[:, 16:48, 36:52] = 1
    images[labels == 1, 24:40, 14:26] = 200  # the disease
    images[labels == 1, :4, 40:] = 255  # and what gives it away
    return Scene(images, masks, labels, np.arange(60).astype(str))


def by_name(scene, scorer, threshold):
    return {one.name: one for one in intervene(scene, scorer, threshold, progress=False)[1]}


def test_a_network_of_the_frame_is_caught_by_the_frame_and_not_by_the_lungs(scene):
    found = by_name(scene, lambda x: x[:, :4, 40:].mean((1, 2)) / 255, 0.7)
    assert found["frame_black"].believed and found["frame_black"].auc.value == 0.5
    assert found["frames_exchanged"].believed and found["frames_exchanged"].auc.value == 0.0
    assert found["frames_exchanged"].excess.value == 1.0
    assert not found["lungs_out"].believed and found["lungs_out"].auc.value == 1.0
    assert found["frame_only"].auc.value == 1.0
    assert found["frame_black"].most_changed and scene.labels[list(found["frame_black"].most_changed)].all()


def test_a_network_of_the_lungs_is_caught_by_the_lungs_alone(scene):
    found = by_name(scene, lambda x: x[:, 24:40, 14:26].mean((1, 2)) / 255, 0.6)
    assert found["lungs_out"].believed and found["lungs_out"].auc.value == 0.5
    for name in ("frame_black", "corners_black", "frames_exchanged", "letter_in"):
        assert found[name].flips.value == 0 and not found[name].believed and found[name].auc_change.value == 0
    assert found["frame_only"].auc.value == 0.5


def test_a_network_that_answers_to_any_change_is_caught_by_none(scene):
    rng = np.random.default_rng(2)
    found = by_name(scene, lambda x: rng.random(len(x)), 0.5)
    with_control = [one.name for one in INTERVENTIONS if one.control]
    assert sum(found[name].believed for name in with_control) <= 1


@pytest.mark.parametrize(
    ("concordance", "useful", "ill", "p", "word"),
    [
        (0.62, True, 0.60, 0.001, "used"),
        (0.62, False, 0.60, 0.001, "harmless"),  # what tells nothing has to be followed more closely
        (0.66, False, 0.60, 0.001, "used"),
        (0.70, True, 0.49, 0.001, "exploitable"),  # the other way round among the ill
        (0.70, True, 0.60, 0.06, "exploitable"),
    ],
)
def test_used_asks_more_of_what_does_not_tell_the_label(concordance, useful, ill, p, word):
    told_ = Told(Estimate(concordance), p, 0.7, ill, 0.1)
    finding = Finding(PROBES["exposure"], "fine", Estimate(0.7), 0.001, 0.01 if useful else 1.0)
    assert Asked(finding, None, None, {"mine": Use(told_, p, 0.8, [])}).verdict == word
