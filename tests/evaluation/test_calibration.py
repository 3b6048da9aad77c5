"""Calibration: against Finley's tornadoes, scikit-learn, hand-made bins and simulated truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from cxrlib.errors import ConfigError, CxrWarning, DataError
from cxrlib.evaluation.calibration import (
    Scaling,
    bin_edges,
    calibration,
    fit_platt,
    fit_temperature,
    reliability,
    to_logits,
)


def forecasts(n: int = 4000, slope: float = 1.0, offset: float = 0.0, seed: int = 0):
    """Logits, and labels that are true to ``slope × logit + offset``."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, n)
    return logits, (rng.random(n) < expit(slope * logits + offset)).astype(int)


def ece(labels, probabilities, **options):
    return calibration(labels, [probabilities], **options, replicates=0)["ece"].value


def test_finleys_tornadoes_decompose_as_by_hand():
    # Finley 1884: 100 forecasts of a tornado, 28 right; 2,703 of none, 23 wrong (Murphy 1996,
    # doi:10.1175/1520-0434(1996)011<0003:TFAASE>2.0.CO;2, prints the table).
    probabilities = np.repeat([1.0, 1.0, 0.0, 0.0], [28, 72, 23, 2680])
    labels = np.repeat([1, 0, 1, 0], [28, 72, 23, 2680])
    found = calibration(labels, [probabilities], bins=2, strategy="uniform", replicates=0)
    n, share = 2803, 51 / 2803
    assert found["brier"].value == pytest.approx(95 / n)
    assert found["uncertainty"].value == pytest.approx(share * (1 - share))
    assert found["reliability"].value == pytest.approx((100 * 0.72**2 + 2703 * (23 / 2703) ** 2) / n)
    assert found["resolution"].value == pytest.approx(
        (100 * (0.28 - share) ** 2 + 2703 * (23 / 2703 - share) ** 2) / n
    )
    assert found["within"].value == pytest.approx(0, abs=1e-12)


def test_brier_score_and_log_loss_are_scikit_learns():
    logits, labels = forecasts(500)
    found = calibration(labels, [expit(logits)], replicates=0)
    assert found["brier"].value == pytest.approx(brier_score_loss(labels, expit(logits)))
    assert found["log_loss"].value == pytest.approx(log_loss(labels, expit(logits)))


def test_ece_of_two_bins_by_hand():
    probabilities = [0.1, 0.3, 0.2, 0.7, 0.9]
    labels = [0, 1, 0, 1, 1]
    # Equal widths: (0.2 against 1/3) in three rows, (0.8 against 1) in two.
    assert ece(labels, probabilities, bins=2, strategy="uniform") == pytest.approx(
        (3 * abs(0.2 - 1 / 3) + 2 * 0.2) / 5
    )


def test_ece_agrees_with_a_loop_over_bins():
    logits, labels = forecasts(777, slope=0.5)
    probabilities = expit(logits)
    total = 0.0
    for low in np.arange(0, 1, 0.1):
        inside = (probabilities >= low) & (probabilities < low + 0.1)
        if inside.any():
            total += inside.mean() * abs(probabilities[inside].mean() - labels[inside].mean())
    assert ece(labels, probabilities, bins=10, strategy="uniform") == pytest.approx(total)


def test_quantile_bins_are_equally_full():
    logits, labels = forecasts(1000)
    assert reliability(labels, expit(logits), bins=8, replicates=10)["n"].tolist() == [125] * 8


def test_reliability_of_calibrated_forecasts_holds_the_diagonal():
    logits, labels = forecasts(8000)
    table = reliability(labels, expit(logits), replicates=400)
    assert ((table["low"] <= table["probability"]) & (table["probability"] <= table["high"])).mean() >= 0.8


def test_temperature_is_the_logistic_regression_without_intercept():
    logits, labels = forecasts(2000, slope=0.4)
    peer = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(logits[:, None], labels)
    assert fit_temperature(labels, logits).slope == pytest.approx(peer.coef_[0, 0], rel=1e-3)


def test_platt_is_the_logistic_regression():
    logits, labels = forecasts(2000, slope=1.7, offset=-0.8)
    peer = LogisticRegression(C=np.inf, tol=1e-10).fit(logits[:, None], labels)
    found = fit_platt(labels, logits)
    assert found.slope == pytest.approx(peer.coef_[0, 0], rel=1e-3)
    assert found.offset == pytest.approx(peer.intercept_[0], rel=1e-3)


def test_temperature_recovers_what_was_planted_and_keeps_the_order():
    logits, labels = forecasts(20_000)
    found = fit_temperature(labels, 3 * logits)
    assert found.temperature == pytest.approx(3, rel=0.05)
    assert (np.argsort(found(logits)) == np.argsort(logits)).all()


def test_separable_logits_have_no_temperature():
    with pytest.warns(CxrWarning, match="separate the two classes"):
        fit_temperature([0, 0, 1, 1], [-2.0, -1.0, 1.0, 2.0])


def test_ece_of_calibrated_forecasts_lies_within_its_floor_and_overconfident_above():
    logits, labels = forecasts(400, seed=3)
    fair = calibration(labels, [expit(logits)], replicates=300)
    assert fair["ece"].value <= fair["ece_floor"].high
    assert fair["ece"].low == 0
    sure = calibration(labels, [expit(4 * logits)], replicates=300)
    assert sure["ece"].low > sure["ece_floor"].high


def test_interval_of_the_ece_holds_the_true_error():
    logits, labels = forecasts(200_000, slope=0.5)
    true = ece(labels, expit(logits))
    held = 0
    for seed in range(30):
        logits, labels = forecasts(400, slope=0.5, seed=seed)
        found = calibration(labels, [expit(logits)], replicates=200)["ece"]
        held += found.low <= true <= found.high
    assert held >= 25  # 28.5 expected


def test_patients_with_copies_widen_the_interval():
    logits, labels = forecasts(150)
    owners, many = np.repeat(np.arange(150), 4), np.repeat(expit(logits), 4)
    by_patient = calibration(np.repeat(labels, 4), [many], owners, replicates=300)["brier"]
    by_image = calibration(np.repeat(labels, 4), [many], replicates=300)["brier"]
    ratio = (by_patient.high - by_patient.low) / (by_image.high - by_image.low)
    assert 1.6 < ratio < 2.5  # √4 = 2


def test_several_seeds_are_averaged():
    logits, labels = forecasts(300)
    one, two = (calibration(labels, [expit(s * logits)], replicates=0)["ece"].value for s in (1, 2))
    both = calibration(labels, [expit(logits), expit(2 * logits)], replicates=50)["ece"]
    assert both.value == pytest.approx((one + two) / 2)
    assert both.seeds == 2


def test_scaling_by_one_gives_the_probabilities_back():
    probabilities = np.array([1e-3, 0.2, 0.5, 0.999])
    assert Scaling()(to_logits(probabilities)) == pytest.approx(probabilities)


def test_logits_in_place_of_probabilities_are_refused():
    with pytest.raises(DataError, match="no probabilities"):
        ece([0, 1], [-1.2, 3.0])
    with pytest.raises(ConfigError, match="bins"):
        bin_edges([0.5], 10, "equal")


def test_a_patient_is_needed_for_each_row_and_probabilities_are_no_logits():
    labels, p = np.array([0, 1, 0, 1]), np.array([0.2, 0.7, 0.4, 0.6])
    with pytest.raises(DataError, match="3 patients for 4 rows"):
        calibration(labels, [p], ["a", "b", "c"])
    with pytest.raises(DataError, match="1 of 4 rows have no patient"):
        calibration(labels, [p], np.array(["a", "b", None, "c"], dtype=object))
    with pytest.raises(DataError, match="into a list"):
        calibration(labels, p)
    with pytest.warns(CxrWarning, match="to_logits"):
        fit_temperature(labels, p)
    with pytest.raises(DataError, match="both classes"):
        fit_temperature(np.ones(4), p)
