"""The benchmark of the audit of classifiers: what it counts, and that a network goes through it."""

import json

import numpy as np
import pytest

from benchmarks import audit_model as bench


def network(number, confounder, flips, verdict, concordance, ward="selection only"):
    attributes = {
        f"column_{confounder or 'marker'}": {
            "verdict": verdict,
            "concordance": {"value": concordance},
            "p_visible": 0.01,
            "visible": {"value": 0.7},
        },
        "column_ward": {"verdict": ward, "concordance": {"value": 0.5}},
    }
    return {
        "number": number, "confounder": confounder, "column": confounder or "marker", "agreement": 0.9,
        "flips": dict.fromkeys(bench.NAMED, flips), "towards_ill": dict.fromkeys(bench.NAMED, flips),
        "attributes": attributes, "auc_unconfounded": 0.9,
    }  # fmt: skip


def test_networks_are_counted_by_what_their_twins_say():
    runs = [
        network(0, "marker", 0.5, "used", 0.9),
        network(1, "devices", 0.25, "exploitable", 0.7),
        network(2, "marker", 0.1, "used", 0.6, ward="exploitable"),
        network(3, None, 0.3, "used", 0.65),  # an alarm, but not an unfounded one
        network(4, None, 0.02, "used", 0.61),
        network(5, None, 0.01, "harmless", 0.5),
    ]
    numbers = bench.summary(runs)
    assert numbers["use.found"]["value"] == 0.5 and numbers["use.found"]["n"] == 2
    assert numbers["use.false_alarms"]["value"] == pytest.approx(2 / 3)
    assert numbers["use.unfounded_alarms"]["value"] == pytest.approx(1 / 3)
    assert numbers["invisible.exploitable"]["value"] == pytest.approx(1 / 6)
    assert numbers["visible.found.devices"]["value"] == 1 and numbers["visible.found.marker"]["n"] == 5
    truth, measured = [0.5, 0.25, 0.1, 0.3, 0.02, 0.01], [0.9, 0.7, 0.6, 0.65, 0.61, 0.5]
    ranks = [np.argsort(np.argsort(values)) for values in (truth, measured)]
    assert numbers["use.rank_correlation"]["value"] == pytest.approx(np.corrcoef(ranks)[0, 1])


def test_a_ward_follows_the_label_and_the_patient():
    table = bench.table_of(bench.QUICK, "learnt")
    wards = bench.ward(table, 0.9, np.random.default_rng(0))
    share = (wards == "intensive care")[table["label"] == 1].mean()
    assert share > 0.7
    assert (table.assign(ward=wards).groupby(["patient_id", "label"])["ward"].nunique() == 1).all()


@pytest.mark.filterwarnings("ignore:All logits lie between 0 and 1")
def test_a_network_is_trained_audited_and_not_made_again(tmp_path, capsys):
    options = ["--quick", "--limit", "1", "--work", str(tmp_path), "--out", str(tmp_path / "found.json")]
    bench.main(options)
    first = json.loads((tmp_path / "found.json").read_text())
    assert first["numbers"]["networks"]["value"] == 1
    (one,) = first["networks"]
    assert one["confounder"] == "marker" and set(one["flips"]) == {"marker"}
    assert {"column_ward", "column_marker", "marker", "exposure"} <= set(one["verdicts"])
    bench.main(options)
    assert json.loads((tmp_path / "found.json").read_text())["networks"] == first["networks"]
    assert "invisible.exploitable" in capsys.readouterr().out
