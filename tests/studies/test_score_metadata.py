"""How much of a score the table's columns explain, where it is known how much they should."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import r2_score

from cxrlib.errors import DataError
from cxrlib.studies import chexnet, score_metadata
from cxrlib.studies.score_metadata import explained, r_squared


@pytest.fixture(scope="module")
def table():
    """The label goes by the view; the score's logit is the view's, and as much noise again."""
    rng = np.random.default_rng(0)
    n = 4000
    ap = rng.random(n) < 0.5
    x = np.where(ap, 1.0, -1.0) + rng.normal(size=n)
    return pd.DataFrame(
        {
            "patient_id": rng.integers(0, 1500, n).astype(str),
            "view": np.where(ap, "AP", "PA"),
            "age": rng.integers(20, 90, n),
            "sex": rng.choice(["F", "M"], n),
            "follow_up": rng.integers(0, 10, n),
            "Pneumonia": rng.random(n) < np.where(ap, 0.4, 0.1),
            "score_Pneumonia": 1 / (1 + np.exp(-x)),
        }
    )


def test_half_of_the_variance_is_the_views_and_none_the_sexs(table):
    by_view = explained(table, table["score_Pneumonia"], ("view",), replicates=200)
    assert by_view.r2["logit"].value == pytest.approx(0.5, abs=0.03)
    assert by_view.r2["logit"].low < 0.5 < by_view.r2["logit"].high
    assert abs(explained(table, table["score_Pneumonia"], ("sex",), replicates=50).r2["rank"].value) < 0.01


def test_a_monotone_change_of_the_score_leaves_the_rank_explained_as_it_was(table):
    scores = table["score_Pneumonia"].to_numpy()
    one, two = (explained(table, s, ("view", "age"), replicates=20).r2["rank"] for s in (scores, scores**3))
    assert one.value == pytest.approx(two.value)


def test_r_squared_is_the_textbooks(table):
    rng = np.random.default_rng(1)
    target = rng.normal(size=300)
    predicted = 0.5 * target + rng.normal(size=300)
    patients = np.arange(300) // 3
    found = r_squared(target, predicted, patients, replicates=100)
    assert found.value == pytest.approx(r2_score(target, predicted))
    assert found.low < found.value < found.high
    assert r_squared(target, np.full(300, target.mean()), patients).value == pytest.approx(0)


def test_a_score_that_knows_the_view_only_keeps_nothing_without_it(table):
    found = score_metadata.chexnet_metadata(table, replicates=100)
    assert found["predicted_score.auc"].low > 0.6
    assert found["rest_of_score.auc"].low < 0.5 < found["rest_of_score.auc"].high
    assert found["same_view.auc"].low < 0.5 < found["same_view.auc"].high
    assert found["metadata.r2_rank"].value > 0.9 * found["view.r2_rank"].value
    assert found["metadata.auc"].low > 0.6


def test_what_cannot_be_explained_is_refused(table):
    scores = table["score_Pneumonia"].to_numpy()
    with pytest.raises(DataError, match="weight"):
        explained(table, scores, ("weight",))
    with pytest.raises(DataError, match="No columns"):
        explained(table, scores, ())
    with pytest.raises(DataError, match="shape"):
        explained(table, scores[:10])
    with pytest.raises(DataError, match="no probabilities"):
        explained(table, scores + 1)
    with pytest.raises(DataError, match="equal"):
        explained(table, np.full(len(table), 0.5))


@pytest.mark.real_data
def test_the_table_explains_a_part_of_chexnets_pneumonia_score(data_root):
    table = chexnet.load(data_root / "chexnet-predictions")
    found = explained(table, table["score_Pneumonia"], replicates=100)
    assert 0.02 < found.r2["rank"].low < found.r2["rank"].high < 0.5
