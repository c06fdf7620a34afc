"""New lesions for another hospital: does laying lesions into scans beat nnU-Net's transforms on the next site?

    python benchmarks/lesion_sites.py SHARDS --runs FOLDER [--draws 20] [--patients 10] [--train HT --test DU]

SHARDS are labelled FLAIR slices of several sites with one label `lesion`, for example (the masks are CC BY-NC-SA; only
figures leave the machine):

    augengine ingest LGG_NIFTI --out SHARDS --public-ids --channels 'flair=*_flair.nii.gz' --mask '*_seg.nii.gz' \
        --labels lesion=1 --size 96 --subject '(TCGA_[A-Z]+_[A-Z0-9]+)/' --site-pattern '/?(DU|HT)/' \
        --foreground nonzero

(The ids are public since draws follow from them: pseudonyms would draw other patients on another machine.)

A draw takes so many patients of the training site afresh. All that is made follows from them alone: the bank of their
lesions, the augmented rows, the nets. Every arm trains the same nets (steps, seeds, transforms) on real rows, half of
those with lesions replaced in each epoch where it has augmented ones. `oversampled` has no augmented rows, and those
with lesions twice; `batchgeneratorsv2` has none either, and that package's own transforms, nnU-Net's, in place of the
engine's after them. The probabilities of `--nets` nets are averaged. Tested: all patients of the other site, and the
training site's others (home).

The same command goes on where it stopped; with `--part K/N` it makes every N-th draw alone, and without it (with
`--draws 0` it makes none) records all draws that there are. The record holds every patient's scores, by numbers, so
that draws add up over many days and machines: draws that are recorded are not made again, and a record of other data,
rows or networks is refused. Every arm is summed up over the draws that have it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _record import RESULTS, record
from matplotlib.figure import Figure
from scipy import stats

from augengine import rng
from augengine.bundled import policy_file
from augengine.diffusion.checkpoint import load_model
from augengine.diffusion.segmentation import probabilities
from augengine.intensity import normalise
from augengine.io.dataset import dataset_files, write_dataset
from augengine.io.shards import from_row, read_group, to_table
from augengine.io.store import Store
from augengine.load import load_mixture
from augengine.metrics.lesion_survey import Patient, SurveyLesions
from augengine.metrics.partial import Pair
from augengine.pipeline.augment import augment
from augengine.pipeline.measure import measure
from augengine.pipeline.units import INLINE
from augengine.records import Sample
from augengine.report.lesions import write_bank
from augengine.train.config import Recipe
from augengine.train.run import train

Scores = dict[str, list[float | None]]
"""Number of a patient → Dice and share of false positives; None of a patient without healthy slices."""
Draws = dict[str, dict[str, Scores]]
"""Number of a draw → arm → scores."""
LESION = ("lesion",)
# Replicates make the pool large: an epoch draws a small part of it, so that a net meets few rows twice.
POLICIES = {"donor": "brats_lesion_insertion", "drawn": "lesion_insertion_drawn"}
SETTINGS = ("select.split=train", "params.host.edge_mm=16", "output.per_input=4")  # the skull is in the images
BALANCE = 0.5
CONTROLS: dict[str, dict[str, Any]] = {
    "classical": {},
    "batchgeneratorsv2": {"classical": None, "batchgeneratorsv2": {}},
}
"""Arms of the real rows alone, by what their recipes change."""
DICE, FALSE = 0, 1  # places of a patient's scores
RECIPE: dict[str, Any] = {
    "version": 1,
    "name": "lesion-sites",
    "kind": "segmenter",
    "network": {"body": "residual_unet", "channels": [16, 32, 64, 128], "res_units": 1},
    "classical": {},
    "data": {"regions": {"lesion": ["lesion"]}, "validation_rows": 0, "window_groups": 64},
    "intensity": {"foreground": "nonzero"},
    "optimiser": {
        "batch_size": 12,
        "learning_rate": 4.0e-3,
        "weight_decay": 1.0e-3,
        "warmup_steps": 30,
        "ema_decay": 0.99,
    },
    "validate_every": 100_000,
    "checkpoint_minutes": 60,
}


def main() -> None:
    """Make the missing draws, or record those that there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards")
    parser.add_argument("--runs", required=True, help="folder that draws are kept in")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--patients", type=int, default=10)
    parser.add_argument("--train", default="HT")
    parser.add_argument("--test", default="DU")
    parser.add_argument("--nets", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--arms", default="classical,donor,drawn")
    parser.add_argument("--part", help="K/N: make every N-th draw from K on, and record nothing")
    parser.add_argument("--name", default="lesion_sites", help="of the results")
    given = parser.parse_args()
    part, parts = map(int, (given.part or "0/1").split("/"))
    runs = Path(given.runs).resolve() / f"{given.train}-{given.test}-{given.patients}-{given.steps}-{given.nets}"
    rows = read_rows(given.shards)
    about, numbers = settings(rows, given), patient_numbers(rows)
    draws = recorded(given.name, about)
    for draw in range(part, given.draws, parts):
        for arm in given.arms.split(","):
            if arm not in draws.get(str(draw), {}) and not (runs / f"{draw:03d}" / f"{arm}.json").exists():
                make(rows, runs / f"{draw:03d}", draw, arm, given)
    for path in sorted(runs.glob("*/*.json")):
        found = json.loads(path.read_text())["scores"].items()
        scores = {numbers[s]: [None if np.isnan(v[k]) else v[k] for k in ("dice", "false_positive")] for s, v in found}
        draws.setdefault(str(int(path.parent.name)), {})[path.stem] = scores
    if given.part is None:
        found = summary(draws, rows, given)
        print(record(given.name, {"settings": about, **found, "draws": draws}))
        plot(found["arms"]).savefig(RESULTS / f"{given.name}.png", dpi=100)


def settings(rows: dict[str, list[Sample]], given: argparse.Namespace) -> dict[str, Any]:
    """What draws must share to stand in one table."""
    policies = {arm: load_mixture(policy_file(name), SETTINGS).digest for arm, name in POLICIES.items()}
    data = rng.digest([(s, [r.sample_id for r in samples]) for s, samples in sorted(rows.items())], length=16)
    recipe = Recipe.model_validate(RECIPE | {"steps": given.steps}).digest
    asked = {k: getattr(given, k) for k in ("train", "test", "patients", "steps", "nets")}
    return {**asked, "data": data, "recipe": recipe, "balance": BALANCE, "policies": policies}


def patient_numbers(rows: dict[str, list[Sample]]) -> dict[str, str]:
    """A number for every subject, such as DU-07, in the order of the ids."""
    found: dict[str, str] = {}
    for subject, samples in sorted(rows.items()):
        site = samples[0].site
        found[subject] = f"{site}-{sum(name.startswith(f'{site}-') for name in found.values()) + 1:02d}"
    return found


def recorded(name: str, about: dict[str, Any]) -> Draws:
    """Draws of the record → arms → patients' numbers → Dice and share of false positives; none without a record."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return {}
    figures = json.loads(path.read_text())["figures"]
    if figures["settings"] != about:
        odd = [key for key, value in about.items() if figures["settings"].get(key) != value]
        raise SystemExit(f"{path.name} is of another {', '.join(odd)}: give --name for a record of its own")
    return dict(figures["draws"])


def read_rows(uri: str) -> dict[str, list[Sample]]:
    """All rows by subject, in the order of their slices."""
    store, found = Store.at(uri), dict[str, list[Sample]]()
    for name in dataset_files(store):
        file = store.parquet(name)
        for group in range(file.num_row_groups):
            for row in read_group(file, group).to_pylist():
                found.setdefault(row["subject_id"], []).append(from_row(row))
    return {subject: sorted(samples, key=lambda s: s.slice_index or 0) for subject, samples in sorted(found.items())}


def drawn_patients(rows: dict[str, list[Sample]], site: str, draw: int, count: int) -> list[str]:
    """The training patients of a draw; those of fewer patients are among those of more."""
    there = [subject for subject, samples in rows.items() if samples[0].site == site]
    return sorted(sorted(there, key=lambda subject: rng.derive("draw", draw, subject))[:count])


def make(rows: dict[str, list[Sample]], folder: Path, draw: int, arm: str, given: argparse.Namespace) -> None:
    """Rows, nets and scores of one arm of one draw."""
    chosen = drawn_patients(rows, given.train, draw, given.patients)
    data = str(folder / "real")
    if not (folder / "real/manifest.json").exists():
        write_dataset(data, [to_table([s.replace(split="train") for s in rows[subject]]) for subject in chosen])
    folders, own = [data], {}
    if arm == "oversampled":  # the control: as many more rows with lesions as augmentation might seem to be worth
        ill = [s for subject in chosen for s in rows[subject] if (s.label == s.labels[LESION[0]]).any()]
        write_dataset(str(folder / arm), [to_table([s.replace(split="train") for s in ill])])
        folders.append(str(folder / arm))
    elif arm not in CONTROLS:
        if not (folder / "bank/model.json").exists():
            asked = {"labels": LESION, "kept": 512, "size": 64, "least_ml": 0.05}
            write_bank(measure(data, SurveyLesions, asked, actors=INLINE), LESION, LESION, 64, Store(str(folder)))
        loaded = load_mixture(policy_file(POLICIES[arm]), SETTINGS)
        made = augment(loaded, data, str(folder / arm), {"bank": str(folder / "bank")}, actors=INLINE)
        print(f"draw {draw} {arm}: {dict(made.counts)}", flush=True)
        folders.append(str(folder / arm))
        own = {"balance": list(LESION), "augmented_per_real": BALANCE}
    nets = []
    for net in range(given.nets):
        seed = rng.derive(draw, net) % 2**31
        recipe = Recipe.model_validate(
            RECIPE | CONTROLS.get(arm, {}) | {"steps": given.steps, "seed": seed, "data": RECIPE["data"] | own}
        )
        uri = train(
            recipe,
            folders,
            str(folder / f"{arm}-{net}"),
            num_workers=0,
            threads_per_worker=1,
            progress=lambda line: None,
        )
        nets.append(load_model(uri))
    scored = {
        subject: score(nets, samples)
        for subject, samples in rows.items()
        if samples[0].site in (given.train, given.test) and subject not in chosen
    }
    (folder / f"{arm}.json").write_text(json.dumps({"train": chosen, "scores": scored}, indent=1))
    abroad = [v["dice"] for s, v in scored.items() if rows[s][0].site == given.test]
    print(f"draw {draw} {arm}: Dice {np.mean(abroad):.3f} abroad", flush=True)


def score(nets: list[Any], samples: list[Sample]) -> dict[str, float]:
    """Dice of a patient's volume, and the share of its healthy slices that show a lesion."""
    x = torch.from_numpy(np.stack([normalise(s) for s in samples]))
    with torch.no_grad():
        found = torch.stack([probabilities(net.spec, net.network(x).float()) for net in nets]).mean(0)[:, 0] > 0.5
    truth = torch.from_numpy(np.stack([s.label == s.labels["lesion"] for s in samples]))
    healthy = ~truth.flatten(1).any(1)
    both = float((found & truth).sum())
    dice = 2 * both / max(1.0, float(found.sum() + truth.sum()))
    false = float(found[healthy].flatten(1).any(1).float().mean()) if healthy.any() else float("nan")
    return {"dice": round(dice, 5), "false_positive": round(false, 5)}


def summary(draws: Draws, rows: dict[str, list[Sample]], given: argparse.Namespace) -> dict[str, Any]:
    """Means, paired differences to `classical` with intervals over draws and patients, and thirds of contrast."""
    numbers, patients = patient_numbers(rows), surveyed(rows)
    ratios = {numbers[subject]: patient.contrast.ratios[0] for subject, patient in patients.items()}
    at = {site: [numbers[s] for s, v in rows.items() if v[0].site == site] for site in (given.train, given.test)}
    abroad = [number for number in at[given.test] if not np.isnan(ratios[number])]
    edges = np.quantile([ratios[number] for number in abroad], (1 / 3, 2 / 3))
    thirds = {
        name: [number for number in abroad if np.searchsorted(edges, ratios[number]) == n]
        for n, name in enumerate(("faint", "middle", "bright"))
    }
    cells = {"abroad": abroad, "home": at[given.train], **thirds}
    table: dict[str, Any] = {}
    for arm in sorted({arm for found in draws.values() for arm in found}):
        whole = {draw: found for draw, found in draws.items() if {arm, "classical"} <= set(found)}
        if len(whole) < 2:
            continue
        table[arm] = {"draws": len(whole)} | {
            cell: {
                "dice": float(np.mean([mean(found[arm], own, DICE) for found in whole.values()])),
                "false_positive": float(np.mean([mean(found[arm], own, FALSE) for found in whole.values()])),
                **({} if arm == "classical" else {"difference": difference(whole, arm, own)}),
            }
            for cell, own in cells.items()
        }
        print(arm, len(whole), json.dumps(table[arm]["abroad"]), json.dumps(table[arm]["home"]))
    return {"contrast_thirds": edges.round(3).tolist(), "arms": table}


def plot(table: dict[str, Any]) -> Figure:
    """Difference to `classical` by arm and cell: every draw a dot, the interval over draws and patients a line."""
    arms, cells = [arm for arm in table if arm != "classical"], ("abroad", "faint", "home")
    figure = Figure(figsize=(8, 1.2 + 0.5 * len(arms)), layout="constrained")
    for axes, cell in zip(figure.subplots(1, len(cells), sharex=True, sharey=True), cells, strict=True):
        for n, arm in enumerate(arms):
            of = table[arm][cell]["difference"]
            axes.plot([of["low"], of["high"]], [n, n], color=f"C{n}", linewidth=3)
            axes.plot(of["by_draw"], [n] * len(of["by_draw"]), "o", color=f"C{n}", markersize=4)
            axes.plot(of["mean"], n, "|", color="black", markersize=16)
        axes.axvline(0, color="0.5", linewidth=1)
        axes.set_yticks(range(len(arms)), [f"{arm} ({table[arm]['draws']} draws)" for arm in arms])
        axes.set_title(cell, fontsize=10)
        axes.set_xlabel("Dice less classical's", fontsize=9)
    return figure


def surveyed(rows: dict[str, list[Sample]]) -> dict[str, Patient]:
    """Contrast of every patient's lesions."""
    survey = SurveyLesions(LESION, 1, 64, 0.05)
    return {s: survey([Pair(v.replace(split="test")) for v in samples]).patients[s] for s, samples in rows.items()}


def mean(scores: Scores, patients: list[str], what: int) -> float:
    """Over those of the patients that were tested in a draw, and have a score."""
    found = [scores[p][what] for p in patients if p in scores]
    return float(np.mean([value for value in found if value is not None]))


def difference(found: dict[str, Any], arm: str, own: list[str]) -> dict[str, Any]:
    """Paired difference of Dice to `classical`: mean, 95 % interval over draws (t) and over draws and patients
    (bootstrap of both), standard deviation between draws, and the draws that a half-width of .02 would need."""
    paired = [
        {s: scores[arm][s][DICE] - scores["classical"][s][DICE] for s in own if s in scores[arm]}
        for scores in found.values()
    ]
    means = np.array([np.mean(list(of.values())) for of in paired])
    spread, count = float(means.std(ddof=1)), len(means)
    half = float(stats.t.ppf(0.975, count - 1)) * spread / count**0.5
    random, drawn = rng.generator("lesion sites", arm), []
    for _ in range(2000):
        picked = [paired[n] for n in random.integers(count, size=count)]
        weights = dict(zip(*np.unique(random.choice(own, len(own)), return_counts=True), strict=True))
        sums = [
            (sum(weights.get(s, 0) * v for s, v in of.items()), sum(weights.get(s, 0) for s in of)) for of in picked
        ]
        drawn.append(np.mean([total / n for total, n in sums if n]))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {
        "mean": float(means.mean()),
        "by_draw": means.round(5).tolist(),
        "low_draws": float(means.mean()) - half,
        "high_draws": float(means.mean()) + half,
        "low": float(low),
        "high": float(high),
        "sd_draws": spread,
        "draws_for_0.02": int(np.ceil((1.96 * spread / 0.02) ** 2)),
    }


if __name__ == "__main__":
    main()
