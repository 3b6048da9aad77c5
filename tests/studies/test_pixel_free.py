"""What tables say of their own labels: known answers, held-out patients, and the columns' own table."""

import numpy as np
import pandas as pd
import pytest

from cxrlib.datasets import nih_tables
from cxrlib.plots import pixel_free as plots
from cxrlib.studies import pixel_free, shortcuts


def made(n=3000, view_risk=0.5, seed=0):
    """A table in which AP films are ill with a probability of one half plus or minus ``view_risk`` / 2."""
    rng = np.random.default_rng(seed)
    ap = rng.random(n) < 0.5
    label = rng.random(n) < 0.5 + view_risk * (ap - 0.5)
    return pd.DataFrame(
        {
            "image_id": [f"{seed}-{i}" for i in range(n)],
            "patient_id": [f"{seed}-{i // 2}" for i in range(n)],
            "view": np.where(ap, "AP", "PA"),
            "age": rng.integers(20, 90, n).astype(float),
            "sex": rng.choice(["F", "M"], n),
            "label": label.astype(int),
        }
    )


def test_a_shortcut_that_points_the_other_way_elsewhere_is_below_one_half_there():
    tables = {"here": made(), "same": made(seed=1), "turned": made(view_risk=-0.5, seed=2)}
    found = pixel_free.transfer(tables, folds=2, replicates=20)
    auc = {key.removesuffix(".pneumonia.auc"): estimate.value for key, estimate in found.items()}
    # P(AP | ill) = 3/4 and P(AP | healthy) = 1/4: the AUC of the view is 3/4.
    assert auc["here_to_here"] == pytest.approx(0.75, abs=0.03) == auc["here_to_same"]
    assert auc["here_to_turned"] == pytest.approx(0.25, abs=0.03)
    assert len(auc) == 9


def test_tables_without_a_column_are_compared_by_the_others():
    tables = {"here": made(), "sexless": made(seed=1).drop(columns="sex")}
    found = pixel_free.transfer(tables, folds=2, replicates=20)
    assert found["here_to_sexless.pneumonia.auc"].value == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("kind", ["trees", "logistic"])
def test_a_named_kind_is_the_one_of_every_fold(kind):
    found = shortcuts.pixel_free(made(400), ("view",), kind=kind, folds=2, replicates=10)
    assert found.chosen == (kind, kind)


def test_rsnas_view_alone_is_the_auc_of_two_counts():
    table, _ = pixel_free.table("RSNA")
    found = pixel_free.study(("RSNA",), (), folds=2, replicates=20)
    ill = (table.loc[table["label"] == 1, "view"] == "AP").mean()
    healthy = (table.loc[table["label"] == 0, "view"] == "AP").mean()
    assert found.numbers["RSNA.pneumonia.view.auc"].value == pytest.approx(
        0.5 + (ill - healthy) / 2,
        abs=0.005,  # folds are pooled
    )
    assert found.numbers["RSNA.pneumonia.auc"].value > found.numbers["RSNA.pneumonia.view.auc"].value
    assert found.numbers["RSNA.pneumonia.auc"].n == 26_684
    assert {f"RSNA.pneumonia.{c}.auc" for c in (*pixel_free.SHARED, "pixel_spacing")} < set(found.numbers)


def test_every_column_is_in_the_table_of_what_can_be_seen_and_every_paper_is_cited():
    assert {column for columns in pixel_free._COLUMNS.values() for column in columns} == set(pixel_free.SIGHT)
    assert {paper for papers in pixel_free.REPORTED.values() for paper in papers} == set(pixel_free.CITATIONS)


def test_nih_is_asked_as_the_table_has_it():
    table, how = pixel_free.table("NIH", "Edema")
    assert table["label"].sum() == nih_tables.metadata()["Edema"].sum() and how == {"finding": "Edema"}


def test_the_figure_has_a_row_a_data_set_and_the_networks(styled):
    found = pixel_free.study(("RSNA",), (), folds=2, replicates=20)
    ax = plots.without_a_picture(found.numbers)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["RSNA"]
    assert any("Hurt 2020" in text.get_text() for text in ax.texts)
