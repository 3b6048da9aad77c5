"""The audit of a classifier, audited: does it say *used* of what networks use, and of nothing else?

    python benchmarks/audit_model.py --jobs 2      # writes benchmarks/audit_model.json; some 15 minutes
    python benchmarks/audit_model.py --pilot       # other seeds, on which rules may be changed
    python benchmarks/audit_model.py --summary     # from the networks that are finished

Each network (residual, 64 pixels) is trained on phantoms with one confounder at an agreement from 0.5 to
0.95, or with none: then everything is there at its usual rate and nothing goes along with the label. It is
audited as ``cxr audit --scores`` does, on other phantoms of 128 pixels in which the confounder agrees with
the label as it did in training: one audits the data one has. The table has the confounder as a column, age,
sex, and ``ward``, drawn from the label alone at an agreement of 0.7, 0.8 or 0.9: no pixel shows it. The signs
that the audit measures itself are asked besides. Lungs are found, not given.

The truth: the share of the audited images whose call turns at one half between twins, the same patient
rendered with and without a confounder and else identical to the bit. Of a network without a confounder it is
measured for all six and for sex, so that an alarm can be told from a network that answers to something all
the same.

Networks draw their images from common pools, whose images are rendered and looked at once in each state. The
rules were settled with ``--pilot``, whose numbers are kept beside the others': at first a concordance of 0.60
was asked of every attribute, and networks without a shortcut were said to use sex or exposure
(``use.false_alarms.one_limit``). That blocks of the image do not show letters and devices was seen on the
sixty; that the signs are asked beside them was settled on the pilot's images, where all of 36 columns were
seen then, and none of 36 wards. What is finished stays in ``--work``, a line a network, and is not made
again.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from benchmarks.audit import NAMED
from cxrlib.audit import verdicts
from cxrlib.audit.features import VERSION as FEATURES
from cxrlib.audit.features import describe
from cxrlib.audit.models import Classifiers
from cxrlib.audit.probes import Finding
from cxrlib.audit.rules import PROBES, SIGNIFICANCE
from cxrlib.audit.run import audit_cohort
from cxrlib.audit.use import Told
from cxrlib.cohort import Cohort, split_by_patient
from cxrlib.evaluation.metrics import Estimate, auc, proportion
from cxrlib.evaluation.results import provenance
from cxrlib.io.storage import atomic_path, cache_root, read_arrays
from cxrlib.lungs.masks import segment
from cxrlib.parallel import one_thread, progress_bar, run_jobs
from cxrlib.phantom.latents import Latents, PhantomConfig
from cxrlib.phantom.phantom import cohort_of, draw_latents, render_latents
from cxrlib.studies.planting import flags
from cxrlib.training.config import TrainConfig
from cxrlib.training.inference import predict
from cxrlib.training.models import build
from cxrlib.training.trainer import Trainer

CLEAN = PhantomConfig().unconfounded()
AGREEMENTS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
WARDS = (0.7, 0.8, 0.9)
THRESHOLD, FLIPS, FOUNDED = 0.5, 0.20, 0.10
NETWORK = TrainConfig(
    model="residual", width=16, batch_size=32, learning_rate=6e-3, epochs=8, class_weighted=True,
    check_ins=0.125, train_sample=100,
)  # fmt: skip


@dataclass(frozen=True)
class Size:
    """Images that a network learns from and is audited on, of pools of so many; and the pools' seed."""

    seed: int
    learnt: int = 1200
    learnt_pool: int = 1300
    audited: int = 600
    audited_pool: int = 700
    clean: int = 18
    agreements: tuple[float, ...] = AGREEMENTS
    network: TrainConfig = NETWORK
    permutations: int = 1999


FINAL = Size(seed=310_000)
PILOT = Size(seed=320_000, audited=500, audited_pool=650, clean=6, agreements=(0.7, 0.9))
QUICK = Size(
    seed=330_000, learnt=64, learnt_pool=64, audited=90, audited_pool=90, clean=1, agreements=(0.95,),
    network=replace(NETWORK, epochs=1), permutations=99,
)  # fmt: skip
SIZES = {"final": FINAL, "pilot": PILOT, "quick": QUICK}


def plan(size: Size) -> list[tuple[str | None, float, str]]:
    """Of each network: what is planted in it or None, at which agreement, and what the table's column is."""
    planted = [(name, agreement, name) for agreement in size.agreements for name in NAMED]
    clean = [(None, 0.5, list(NAMED)[k % len(NAMED)]) for k in range(size.clean)]
    every = max(1, len(planted) // max(1, len(clean)))  # mixed, so that a run cut short has some of each
    mixed: list[tuple[str | None, float, str]] = []
    for k, one in enumerate(planted):
        mixed.append(one)
        if k % every == every - 1 and clean:
            mixed.append(clean.pop(0))
    return mixed + clean


@cache
def pool(size: Size, part: str, state: str, work: Path) -> dict[str, np.ndarray]:
    """Images of a pool, uint8 (N, 64, 64), in a state: "clean", or one confounder turned round in each.

    Those that are audited come with the audit's features, of 128 pixels, and the images at that size.
    """
    count = size.learnt_pool if part == "learnt" else size.audited_pool
    seed = size.seed + (part == "audited")
    name = f"{part}-{seed}-{count}-{state}" + (f"-features-{FEATURES}" if part == "audited" else "")
    file = work / f"{name}.npz"
    if (kept := read_arrays(file)) is None:
        latents = drawn(size, part)
        if state != "clean":
            latents = [turned_round(one, state) for one in latents]
        made = cohort_of(render_latents(latents, image_size=128, seed=seed), seed, CLEAN)
        kept = {"small": made.images.reshape(count, 64, 2, 64, 2).mean((2, 4)).round().astype(np.uint8)}
        if part == "audited" and state != "sex":
            own = Cohort(
                made.images, made.table[["image_id", "patient_id", "label", "split"]], name="phantom"
            )
            masked = segment(own, cache_dir=work / "lungs", progress=False)
            kept["large"] = made.images
            kept |= describe(masked, work / name, workers=1, progress=False)
        with atomic_path(file) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, **kept)
    return dict(kept)


def turned_round(one: Latents, state: str) -> Latents:
    """The same patient with a confounder turned round, or of the other sex: its size and breasts, no more."""
    if state != "sex":
        return replace(one, **{state: not getattr(one, state)})
    body = SimpleNamespace(**vars(one.body))
    old, fat = (body.age - 50) / 20, body.fat - 2.1  # what draw_body adds after it has scaled
    added = {"heart_left": 0.25 * old + 0.12 * fat, "depth": 1.4 * fat + 0.5 * old}
    ratio = 1.03 / 0.94 if body.female else 0.94 / 1.03
    for name in ("chest", "length", "heart_left", "heart_right", "knob_y", "depth", "mediastinum", "apex"):
        more = added.get(name, 0.0)
        setattr(body, name, (getattr(body, name) - more) * ratio + more)
    body.female = not body.female
    return replace(one, body=body)


@cache
def drawn(size: Size, part: str) -> list:
    count = size.learnt_pool if part == "learnt" else size.audited_pool
    return draw_latents(count, size.seed + (part == "audited"), CLEAN)


@cache
def table_of(size: Size, part: str) -> pd.DataFrame:
    """The pool's table as things are in its clean state; split of the patients that learn, 85 to 15."""
    from cxrlib.phantom.phantom import table

    made = table(drawn(size, part), size.seed + (part == "audited"))
    split = split_by_patient(made["patient_id"], (0.85, 0.15, 0.0), seed=size.seed)
    return made.assign(split=split if part == "learnt" else "test")


def chosen(patients: np.ndarray, images: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of patients drawn at random until there are so many images."""
    order = {name: place for place, name in enumerate(rng.permutation(np.unique(patients)))}
    places = np.array([order[name] for name in patients])
    return np.sort(np.argsort(places, kind="stable")[:images])


def shown(size: Size, part: str, rows: np.ndarray, states: dict[str, np.ndarray], what: str, work: Path):
    """Arrays of a pool's rows with confounders as ``states`` says: name to bool (N,), at most one changed."""
    images = pool(size, part, "clean", work)[what][rows]
    for name, present in states.items():
        turned = table_of(size, part)[name].to_numpy(bool)[rows] != present
        other = pool(size, part, name, work)[what][rows]
        images = np.where(turned.reshape(-1, *[1] * (images.ndim - 1)), other, images)
    return images


@one_thread
def run(number: int, size: Size, work: str) -> dict:
    """One network: trained, its flips measured, audited."""
    import torch

    torch.set_num_threads(1)
    folder, started = Path(work), time.process_time()
    confounder, agreement, column = plan(size)[number]
    rng = np.random.default_rng([size.seed, number])
    # What it learns from.
    rows = chosen(table_of(size, "learnt")["patient_id"].to_numpy(str), size.learnt, rng)
    config = replace(size.network, seed=number)
    kept = folder / f"{size.seed}-{number}.pt"
    if kept.is_file():  # of a network that is audited again, by other rules
        model = build(config.model, width=config.width, image_size=64).eval()
        model.load_state_dict(torch.load(kept, weights_only=True))
    else:
        trainer = Trainer(config, [])
        trainer.fit(planted(size, "learnt", rows, confounder, agreement, number, folder))
        model = trainer.model.eval()
        torch.save(model.state_dict(), kept)
    # What it is audited on, and what it says of both twins.
    rows = chosen(table_of(size, "audited")["patient_id"].to_numpy(str), size.audited, rng)
    held = planted(size, "audited", rows, confounder, agreement, number, folder)
    here = {} if confounder is None else {confounder: held.table[confounder].to_numpy(bool)}
    scores = predict(model, held.images)
    flips, towards_ill = {}, {}
    for name in [confounder] if confounder else NAMED:
        both = [
            predict(model, shown(size, "audited", rows, {name: np.full(len(rows), there)}, "small", folder))
            >= THRESHOLD
            for there in (False, True)
        ]
        flips[name] = float((both[0] != both[1]).mean())
        towards_ill[name] = float((~both[0] & both[1]).mean())
    if confounder is None:
        other = pool(size, "audited", "sex", folder)["small"][rows]
        flips["sex"] = float(((predict(model, other) >= THRESHOLD) != (scores >= THRESHOLD)).mean())
    # The audit, as a user's.
    ward_agreement = WARDS[number % len(WARDS)]
    table = held.table[["image_id", "patient_id", "label", "split", "age", "sex", column]]
    table = table.assign(ward=ward(table, ward_agreement, rng))
    large = shown(size, "audited", rows, here, "large", folder)
    names = [name for name in pool(size, "audited", "clean", folder) if name not in ("small", "large")]
    features = {name: shown(size, "audited", rows, here, name, folder) for name in names}
    given = Classifiers(pd.DataFrame({"network": scores}), {"network": THRESHOLD})
    audit = audit_cohort(
        Cohort(large, table, name="phantom"), features=features, classifiers=given, source=None,
        has_split=False, permutations=size.permutations, seed=number, workers=1, progress=False,
    )  # fmt: skip
    plain = shown(size, "audited", rows, {}, "small", folder) if confounder else held.images
    return {
        "number": number, "confounder": confounder, "agreement": agreement, "column": column,
        "ward_agreement": ward_agreement, "flips": flips, "towards_ill": towards_ill,
        "auc": auc(held.labels, scores), "auc_unconfounded": auc(held.labels, predict(model, plain)),
        "attributes": {one.probe.name: said(one) for one in audit.attributes},
        "severe": list(audit.severe), "seconds": round(time.process_time() - started, 1),
    }  # fmt: skip


def planted(
    size: Size, part: str, rows: np.ndarray, confounder: str | None, agreement: float, seed: int, work: Path
) -> Cohort:
    """Rows of a pool at 64 pixels, with the confounder at this agreement, and its column as it then is."""
    table = table_of(size, part).iloc[rows].reset_index(drop=True)
    states = {}
    if confounder:
        plain = Cohort(pool(size, part, "clean", work)["small"][rows], table, name="phantom")
        states = {confounder: flags(plain, agreement, seed)}
        table = table.assign(**states)
    return Cohort(shown(size, part, rows, states, "small", work), table, name="phantom")


def ward(table: pd.DataFrame, agreement: float, rng: np.random.Generator) -> np.ndarray:
    """ "intensive care" in a share ``agreement`` of the ill and as few of the healthy, alike in a patient."""
    key = table["patient_id"].str.cat(table["label"].astype(str), sep="/")
    draw = dict(zip(key.unique(), rng.random(key.nunique()), strict=True))
    share = np.where(table["label"] == 1, agreement, 1 - agreement)
    return np.where(key.map(draw).to_numpy() < share, "intensive care", "outpatients")


def said(one: verdicts.Asked) -> dict:
    """What the audit says of an attribute, in numbers."""
    use = one.uses["network"]
    told = use.told
    return {
        "verdict": one.verdict, "concordance": told.concordance.as_dict(), "p_use": told.p_value,
        "p_holm": use.p_holm, "healthy": told.healthy, "ill": told.ill,
        "auc": one.finding.auc.as_dict() if one.finding.auc else None, "useful": one.useful,
        "visible": one.visible.concordance.as_dict() if one.visible else None, "p_visible": one.p_visible,
        "levels": use.levels,
    }  # fmt: skip


def judged(one: dict) -> dict:
    """The same by today's rules, of which a verdict that was kept may know nothing."""
    told = Told(Estimate(**one["concordance"]), one["p_use"], one["healthy"], one["ill"], 0.0)
    use = verdicts.Use(told, one["p_holm"], 0.5, [])
    seen = one["visible"] and Told(Estimate(**one["visible"]), one["p_visible"], 0.5, 0.5, 0.0)
    finding = Finding(PROBES["source"], "fine", Estimate(**one["auc"]), None, 0.0 if one["useful"] else 1.0)
    return one | {"verdict": verdicts.Asked(finding, seen, one["p_visible"], {"network": use}).verdict}


def summary(runs: list[dict]) -> dict[str, dict]:
    """Dotted names to numbers; shares with Wilson's intervals, ``n`` the number of networks."""
    numbers: dict[str, dict] = {"networks": {"value": len(runs)}}
    clean = [one for one in runs if one["confounder"] is None]
    dosed = [one for one in runs if one["confounder"]]

    def share(name: str, hits: list[bool]) -> None:
        if hits:
            numbers[name] = proportion(sum(hits), len(hits)).as_dict()

    def asked(one: dict) -> dict:
        return one["attributes"][f"column_{one['column']}"]

    for name, mine in (("use", runs), ("use.planted", dosed)):
        if len(mine) > 3:
            truth = np.array([one["flips"][one["column"]] for one in mine])
            measured = np.array([asked(one)["concordance"]["value"] for one in mine])
            numbers[f"{name}.rank_correlation"] = correlation(truth, measured).as_dict()
            # Calls that turn as many to ill as to healthy leave no trace in what goes with what.
            ill = np.array([one["towards_ill"][one["column"]] for one in mine])
            numbers[f"{name}.net.rank_correlation"] = correlation(np.abs(2 * ill - truth), measured).as_dict()
    flipping = [one for one in dosed if one["flips"][one["confounder"]] >= FLIPS]
    share("use.found", [asked(one)["verdict"] == "used" for one in flipping])
    signs = [one["attributes"].get(NAMED[one["confounder"]]) for one in flipping]
    share("use.found_by_sign", [sign is not None and sign["verdict"] == "used" for sign in signs])
    share("use.found_by_either", [
        "used" in (asked(one)["verdict"], sign["verdict"] if sign else "")
        for one, sign in zip(flipping, signs, strict=True)
    ])  # fmt: skip
    for name in NAMED:
        mine = [one for one in flipping if one["confounder"] == name]
        share(f"use.found.{name}", [asked(one)["verdict"] == "used" for one in mine])
    steady = [one for one in dosed if one["flips"][one["confounder"]] < 0.05]
    share("use.called_below_5_flips", [asked(one)["verdict"] == "used" for one in steady])
    used = [[name for name, one in run["attributes"].items() if one["verdict"] == "used"] for run in clean]
    share("use.false_alarms", [bool(names) for names in used])
    share("use.false_alarms_an_attribute", [
        one["verdict"] == "used" for run in clean for one in run["attributes"].values()
    ])  # fmt: skip
    # An alarm about something to which that network answers all the same is none.
    cause = {probe: name for name, probe in NAMED.items()} | {f"column_{name}": name for name in NAMED}
    cause["column_sex"] = "sex"
    unfounded = [
        [name for name in names if name not in cause or run["flips"].get(cause[name], 0) < FOUNDED]
        for run, names in zip(clean, used, strict=True)
    ]
    share("use.unfounded_alarms", [bool(names) for names in unfounded])
    wards = [one["attributes"]["column_ward"]["verdict"] for one in runs]
    share("invisible.exploitable", [verdict in ("exploitable", "used") for verdict in wards])
    share("invisible.used", [verdict == "used" for verdict in wards])
    share("invisible.selection_only", [verdict == "selection only" for verdict in wards])
    for name in NAMED:  # of columns that pixels do show, how many the audit sees in the whole image
        found = [asked(one) for one in runs if one["column"] == name]
        share(f"visible.found.{name}", [
            one["p_visible"] < SIGNIFICANCE and one["visible"]["value"] >= verdicts.VISIBLE for one in found
        ])  # fmt: skip
    for name, mine in (("clean", clean), ("planted", dosed)):
        if mine:
            aucs = [one["auc_unconfounded"] for one in mine]
            numbers[f"{name}.auc"] = {"value": float(np.mean(aucs)), "low": min(aucs), "high": max(aucs)}
    numbers["flipping"] = {"value": len(flipping), "n": len(dosed)}
    return numbers


def correlation(truth: np.ndarray, measured: np.ndarray, replicates: int = 2000) -> Estimate:
    """Spearman's, with an interval from resampling networks."""
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(replicates):
        rows = rng.integers(0, len(truth), len(truth))
        if len(np.unique(truth[rows])) > 1:
            draws.append(spearmanr(truth[rows], measured[rows]).statistic)
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return Estimate(float(spearmanr(truth, measured).statistic), float(low), float(high), n=len(truth))


def finished(work: Path, name: str) -> list[dict]:
    """Networks of an earlier run; a last line that was cut off does not count."""
    file, found = work / f"{name}.jsonl", []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            one = json.loads(line)
        except json.JSONDecodeError:
            continue
        found.append(one | {"attributes": {key: judged(value) for key, value in one["attributes"].items()}})
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=cache_root() / "audit-model-benchmark")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--pilot", action="store_true", help="the networks on which rules may be changed")
    parser.add_argument("--quick", action="store_true", help="seven networks that learn nothing: does it run")
    parser.add_argument("--pools", action="store_true", help="render the pools and stop")
    parser.add_argument("--limit", type=int, help="at most so many networks")
    parser.add_argument("--summary", action="store_true", help="make nothing, only sum up")
    given = parser.parse_args(arguments)
    name = "quick" if given.quick else "pilot" if given.pilot else "final"
    size = SIZES[name]
    given.work.mkdir(parents=True, exist_ok=True)
    done = {one["number"] for one in finished(given.work, name)}
    left = [number for number in range(len(plan(size)))[: given.limit] if number not in done]
    if given.pools or (left and given.jobs > 1 and not given.summary):
        for part in ("learnt", "audited"):
            for state in ("clean", *NAMED):
                pool(size, part, state, given.work)
    if given.pools:
        return
    if left and not given.summary:
        jobs = [(number, size, str(given.work)) for number in left]
        with progress_bar(len(jobs), "Networks", None, unit="network") as bar:
            for found in run_jobs(run, jobs, given.jobs):
                with open(given.work / f"{name}.jsonl", "a", encoding="utf-8") as file:
                    file.write("\n" + json.dumps(found) + "\n")
                bar.update(1)
    runs = sorted(finished(given.work, name), key=lambda one: one["number"])
    numbers = summary(runs)
    pilot = summary(finished(given.work, "pilot")) if name == "final" else {}
    with patch.object(verdicts, "USED_ALONE", verdicts.USED):  # as it was before the pilot
        for which, into in ((name, numbers), ("pilot", pilot)):
            if into:
                found = summary(finished(given.work, which)).get("use.false_alarms")
                into |= {"use.false_alarms.one_limit": found} if found else {}
    command = "python benchmarks/audit_model.py"
    facts = {
        "schema": 1, "name": "audit_model", "command": command,
        "sizes": {key: value for key, value in asdict(size).items() if key != "network"},
        "rules": {"used": verdicts.USED, "used_alone": verdicts.USED_ALONE, "visible": verdicts.VISIBLE},
        "numbers": numbers | {f"pilot.{key}": value for key, value in pilot.items()},
        "networks": [{key: value for key, value in one.items() if key != "attributes"} | {
            "verdicts": {key: [value["verdict"], round(value["concordance"]["value"], 3)]
                         for key, value in one["attributes"].items()}} for one in runs],
        "provenance": provenance(
            dataset="phantom", command=command, seed=size.seed, seconds=sum(one["seconds"] for one in runs)
        ),
    }  # fmt: skip
    with atomic_path(given.out) as temporary:
        temporary.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for key, value in numbers.items():
        print(key, {name: round(v, 3) for name, v in value.items()})


if __name__ == "__main__":
    main()
