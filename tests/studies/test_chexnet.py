"""CheXNet's published scores: what they are refused for, the pairs of an AUC, and the published AUCs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cxrlib.datasets.nih_tables import FINDINGS
from cxrlib.errors import DataError
from cxrlib.evaluation import label_errors
from cxrlib.studies import chexnet


@pytest.fixture
def table():
    """Scores that know the view and the finding."""
    rng = np.random.default_rng(0)
    n = 1500
    ap = rng.random(n) < 0.4
    ill = rng.random(n) < np.where(ap, 0.3, 0.1)
    score = 1 / (1 + np.exp(-(rng.normal(size=n) + ill + 1.5 * ap - 2)))
    return pd.DataFrame(
        {
            "view": np.where(ap, "AP", "PA"),
            "Pneumonia": ill,
            "score_Pneumonia": score,
            "patient_id": rng.integers(0, 500, n).astype(str),
        }
    )


def test_the_pairs_of_an_auc_add_up_to_it(table):
    found = chexnet.by_view(table, replicates=20)
    kinds = ("PA", "AP", "AP_with_PA_without", "PA_with_AP_without")
    assert sum(found[f"{kind}.share"].value for kind in kinds) == pytest.approx(1)
    whole = sum(found[f"{kind}.share"].value * found[f"{kind}.auc"].value for kind in kinds)
    assert whole == pytest.approx(found["all.auc"].value)
    assert whole == pytest.approx(roc_auc_score(table["Pneumonia"], table["score_Pneumonia"]))


def test_a_score_that_knows_the_view_gains_across_views_only(table):
    found = chexnet.by_view(table, replicates=100)
    assert found["all_minus_same_view.auc"].low > 0
    assert found["view.auc"].low > 0.7
    assert found["AP_with_PA_without.auc"].low > found["same_view.auc"].high
    assert found["AP_minus_PA.specificity"].high < 0 < found["AP_minus_PA.sensitivity"].low


def test_findings_by_view_are_plain_aucs(table):
    found = chexnet.findings_by_view(table, ("Pneumonia",), replicates=20).loc["Pneumonia"]
    ap = table[table["view"] == "AP"]
    assert found["AP"] == pytest.approx(roc_auc_score(ap["Pneumonia"], ap["score_Pneumonia"]))
    assert found["gap"] == pytest.approx(found["AP"] - found["PA"])


def test_a_table_of_one_view_is_refused(table):
    with pytest.raises(DataError, match="views"):
        chexnet.by_view(table[table["view"] == "AP"])
    with pytest.raises(DataError, match="finding"):
        chexnet.by_view(table, "Influenza")


def test_files_that_are_not_the_published_one_are_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        chexnet.load(tmp_path)
    path = tmp_path / "preds.csv"
    rows = pd.DataFrame({"Image Index": ["nobody.png"]} | {f"prob_{name}": [0.5] for name in FINDINGS})
    rows.drop(columns="prob_Hernia").to_csv(path, index=False)
    with pytest.raises(DataError, match="prob_Hernia"):
        chexnet.load(tmp_path)
    rows.to_csv(path, index=False)
    with pytest.raises(DataError, match="no NIH image"):
        chexnet.load(tmp_path)


@pytest.mark.real_data
def test_the_published_aucs_come_out_and_suspicion_beats_luck(data_root):
    folder = data_root / "chexnet-predictions"
    table = chexnet.load(folder)
    published = pd.read_csv(folder / "aucs.csv").set_index("label")["auc"]
    for finding in FINDINGS:
        ours = roc_auc_score(table[finding], table[f"score_{finding}"])
        assert ours == pytest.approx(published[finding], abs=1e-6)
    doubted = chexnet.suspected_labels(table)
    seen = doubted[doubted["opacity"].notna()]
    assert len(seen) == 935
    found = label_errors.agreement(
        seen["suspected"], seen["wrong"], patients=seen["patient_id"], replicates=200
    )
    assert found["lift"].low > 0.2
