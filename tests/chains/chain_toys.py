"""The one place that says how the documented commands are made small enough for a test, and which are not run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml
from chain_commands import ROOT, Command, run, section

from augengine.diffusion.autoencoder import AutoencoderSpec
from augengine.yaml_config import Document

# Of every recipe, and of its network by body and kind: `--set` of the same keys would do it.
EVERY_RECIPE = (
    "steps=2",
    "validate_every=2",
    "pictures_every=0",
    "checkpoint_minutes=100",
    "optimiser.batch_size=2",
    "optimiser.accumulation=1",
    "optimiser.warmup_steps=0",
    "data.validation_rows=2",
    "hardware.precision=float32",
)
BODIES = {
    "monai": (
        "network.channels=[8, 8]",
        "network.attention_levels=[2]",
        "network.head_channels=8",
        "network.norm_groups=4",
        "network.res_blocks=1",
        "network.token_dim=8",
    ),
    "compact": ("network.channels=[8, 16]", "network.head_channels=8", "network.norm_groups=4", "network.token_dim=8"),
    "dit": ("network.size={layers: 1, heads: 1, head_channels: 16, patch: 2}",),
    "autoencoder_kl": (
        "network.channels=[4, 8]",
        "network.latent_channels=2",
        "network.norm_groups=4",
        "network.res_blocks=1",
        "autoencoding.discriminator_channels=4",
        "autoencoding.discriminator_layers=1",
    ),
    "control": ("network.encoder_channels=[4, 8]",),
    "residual_unet": ("network.channels=[8, 16]", "network.res_units=1"),
    "resnet18": ("network.width=8", "network.norm_groups=4"),
    "local_contrast": ("network.members=1", "network.width=8", "back_translation.rounds=1"),
}
# Of every policy, each member of a mix: few steps, and gates that a network of two steps of training passes.
EVERY_POLICY: dict[str, Any] = {"gates": [{"name": "changed", "min": 0.0}], "max_reject_rate": 1.0, "steps": 2}
# Flags that take the place of what the pages say, or are added, by the first word of a command; those that can, work
# in this process, and others with one actor, since one takes longer to start than its rows: README's `augment` has as
# many as the cluster holds.
ADDED: dict[str, dict[str, str | None]] = {
    "ingest": {"--inline": None},
    "lesions": {"--inline": None},
    "measure": {"--inline": None},
    "sweep": {"--inline": None},
    "pseudo-label": {"--inline": None},
    "phantom": {"--matrix": "32", "--slices": "8", "--subjects": "12", "--actors": "1"},
    "jobs/ingest.py": {"--inline": None},
    "jobs/ensembles.py": {"--samples": "1,2", "--actors": "1"},
    "jobs/evaluate.py": {"--seeds": "1", "--steps": "2", "--actors": "1"},
    "jobs/augment_brats.py": {"--actors": "1"},
    "jobs/augment_duke.py": {"--actors": "1"},
}
# Values that take the place of those in the pages, by flag, and settings of a sweep.
VALUES = {"--size": "32", "--drop-end-slices": "0"}
SWEEPS = {
    "sampler.steps=25,50,75; sampler.strength=0.025,0.05,0.075": "sampler.steps=2,3; sampler.strength=0.4,0.8",
    "sampler.guidance=3,5,7": "sampler.guidance=3",
    "params.mass_effect_margin_mm=0,10,20,40": "params.mass_effect_margin_mm=0,10",
}
ARMS = "real,counterfactual"
"""Arms of an evaluation with augmented rows; there are four by default."""
WITHOUT = ("--gpus-per-actor",)
"""Flags that need what the test's machine has not; their value goes with them."""


# Name of a chain to page, beginning of the heading, and number of the block under it.
CHAINS: dict[str, tuple[str, str, int]] = {
    "004 paper": ("papers.md", "004", 0),
    "004 strict": ("papers.md", "004", 1),
    "004 transductive": ("papers.md", "004", 2),
    "001": ("papers.md", "001", 0),
    "000": ("papers.md", "000", 0),
    "002": ("papers.md", "002", 0),
    "003": ("papers.md", "003", 0),
    "lesion insertion": ("policies.md", "edit: lesion_insertion", 0),
    "README": ("README.md", "Your data", 0),
    "start": ("start.md", "A first picture", 0),
    "how to use Duke": ("how-to/duke.md", "Use Duke", 0),
    "how to use BraTS": ("how-to/brats.md", "Use BraTS", 0),
    "how to use NIfTI": ("how-to/own-nifti.md", "Use your own NIfTI", 0),
    "how to calibrate": ("how-to/calibrate-gates.md", "Calibrate gates", 0),
    "how to fine-tune": ("how-to/fine-tune.md", "Fine-tune", 0),
}
# Beginnings of commands that no chain runs, with the reason.
EXCEPTIONS = {
    "make demo": "8 minutes; `make smoke` runs the same job in small",
    "make test": "runs this test",
    "make lint": "ruff and mypy",
    "make pages": "tests/pages/test_generated_pages.py writes them and compares",
    "make docs": "tests/pages/test_site.py builds the site",
    "python3 -m venv": "an environment; .ci/run makes one",
    ".venv/bin/pip install": "a placeholder; tests/test_bundled.py installs a wheel",
    ".venv/bin/python jobs/evaluate.py --data /data/own": "a placeholder; tests/downstream/test_evaluate.py",
    ". .venv/bin/activate": "of the shell; tests/pipeline/test_ray_jobs.py runs in the environment",
    "ray get-auth-token": "tests/pipeline/test_ray_jobs.py has a token of its own",
    "export RAY_AUTH_MODE": "tests/pipeline/test_ray_jobs.py sets it",
    "RAY_ADDRESS=auto augengine doctor": "tests/pipeline/test_ray_jobs.py asks a head of its own",
    ".venv/bin/python jobs/evaluate.py --data /data/lgg": "tests/downstream/test_few_labels.py draws patients",
    ".venv/bin/python jobs/evaluate.py --data /data/bonn": "tests/downstream/test_joined.py joins sites",
    ".venv/bin/augengine advise": "tests/downstream/test_advise.py runs it in small",
    "ray start --head": "tests/pipeline/test_ray_jobs.py starts a head of its own",
    "ray job submit": "tests/pipeline/test_ray_jobs.py submits it",
    ".venv/bin/python jobs/evaluate.py --phantom": "59 minutes; tests/downstream/test_evaluate.py runs it in small",
    ".venv/bin/python jobs/evaluate.py --protocol phantom_transductive": "tests/downstream/test_evaluate.py",
    "pip install ./my-package": "a package of the reader's; tests/plugins/test_plugin_page.py makes it",
    "augengine check --plugin my_package": "tests/plugins/test_plugin_page.py",
    "augengine augment --data DATA --policy brighter_scans": "tests/plugins/test_plugin_page.py runs the policy",
    ".venv/bin/augengine evaluate --data runs/brains --protocol phantom_brats": "the reader's segmenter; as above",
    "docker build": "needs Docker; tests/test_deploy.py checks what is copied",
    "kubectl": "needs Kubernetes; tests/test_deploy.py checks the job",
    "sbatch": "needs Slurm; jobs/slurm/ray.sh ran once on one node",
    "augengine replay OUTPUT_ID": "a placeholder; tests/pipeline/test_lineage.py",
    "augengine explain OUTPUT_ID": "a placeholder; tests/pipeline/test_lineage.py",
    ".venv/bin/augengine report runs/duke_phantom": "needs the demo's run; other chains make reports",
    "augengine plan": "needs the demo's run; tests/pipeline/test_lineage.py",
    "augengine export TARGET": "a placeholder; tests/export/test_export_command.py",
    "augengine export nnunet": "needs a shell variable; tests/integrations/test_with_nnunet.py",
    "python $nnUNet_raw": "nnU-Net; tests/integrations/test_with_nnunet.py",
    "nnUNet_extTrainer=": "nnU-Net; tests/integrations/test_with_nnunet.py",
    ".venv/bin/python jobs/ingest.py DATA": "a placeholder; the papers' chains ingest",
    ".venv/bin/python jobs/train.py cddgm_small": "16 minutes; the recorded model of docs/methods.md",
    ".venv/bin/python benchmarks/truth.py": "a benchmark; tests/report/test_truth.py",
    "augengine ls": "needs the demo's run, or a bucket; tests/test_user_errors.py",
    ".venv/bin/python jobs/train.py seg_m3_small --data DATA": "a placeholder; how-to/brats.md trains it",
    ".venv/bin/python jobs/train.py RECIPE": "a placeholder; the papers' chains train",
}


def chain(name: str) -> list[Command]:
    """The commands of a chain."""
    return section(*CHAINS[name])


def toy_project(folder: Path) -> None:
    """`jobs/` as in the project, and `recipes/` and `policies/` as in the package, in small."""
    (folder / "jobs").mkdir(parents=True)
    (folder / "recipes").mkdir()
    for script in (ROOT / "jobs").glob("*.py"):
        (folder / "jobs" / script.name).symlink_to(script)
    for path in (ROOT / "augengine/recipes").glob("*.yaml"):
        document = Document.read(path)
        for assignment in (*EVERY_RECIPE, *BODIES[document.data["network"]["body"]]):
            key = assignment.partition("=")[0].split(".")
            optional = key[0] in ("autoencoding", "hardware") or key[-1] == "token_dim"
            if not optional or key[0] in document.data:
                document.override(assignment)
        document.data.get("network", {}).pop("recompute", None)
        (folder / "recipes" / path.name).write_text(yaml.safe_dump(document.data, sort_keys=False))
    (folder / "policies").mkdir()
    for path in (ROOT / "augengine/policies").glob("*.yaml"):
        data = Document.read(path).data
        for policy in [data, *(m["policy"] for m in data.get("mix", ()) if isinstance(m["policy"], dict))]:
            _shrink(policy)
        (folder / "policies" / path.name).write_text(yaml.safe_dump(data, sort_keys=False))


def _shrink(policy: dict[str, Any]) -> None:
    for part in (policy, *policy.get("edits", ())):
        if "gates" in part:
            part["gates"] = EVERY_POLICY["gates"]
        if isinstance(part, dict) and "sampler" in part:
            part["sampler"] = {**part["sampler"], "steps": EVERY_POLICY["steps"]}
    if "gates" in policy:
        policy["output"] = {**policy.get("output", {}), "max_reject_rate": EVERY_POLICY["max_reject_rate"]}
    if policy.get("edit") == "synthetic_labels":
        small = {"candidates": 2, "places": 2, "volume_ml": None, "lesions": None, "min_component_ml": 0.0}
        policy["params"] = {**policy["params"], **small, "prior": {"solver": "ddim", "steps": 2}}
        policy["params"] = {k: v for k, v in policy["params"].items() if v is not None}


def toy(command: Command, disk: Path) -> list[str]:
    """The words of a command as the test runs it: `/data` is a folder of the test, and see the tables above."""
    words = [SWEEPS.get(word, word).replace("/data/", f"{disk}/") for word in command.argv]
    for flag in WITHOUT:
        while flag in words:
            at = words.index(flag)
            del words[at : at + 2]
    words = [VALUES.get(before, word) for before, word in zip(["", *words[:-1]], words, strict=True)]
    more = dict(ADDED.get(words[1], {}))
    if "--augmented" in words and "jobs/evaluate.py" in words:
        more["--arms"] = ARMS
    for flag, value in more.items():
        if flag in words:
            at = words.index(flag)
            del words[at : at + (1 if value is None else 2)]
        words += [flag] if value is None else [flag, value]
    return words


def phantom(disk: Path, name: str, layout: str, *flags: str) -> Path:
    """A phantom in a public layout, as `/data/NAME`."""
    root = disk / name
    size = ["--matrix", "32", "--slices", "8", "--actors", "1"]
    assert run([".venv/bin/augengine", "phantom", layout, "--out", str(root), *size, *flags]) == 0
    return root


def stable_diffusion_vae(folder: Path) -> None:
    """Weights as diffusers writes them, of an autoencoder as small as the recipes of a `toy_project`."""
    from diffusers import AutoencoderKL

    network = Document.read(ROOT / "augengine/recipes/pcf_vae_paper.yaml")
    for assignment in BODIES["autoencoder_kl"]:
        if assignment.startswith("network."):
            network.override(assignment)
    AutoencoderKL(**AutoencoderSpec.model_validate(network.data["network"]).diffusers).save_pretrained(folder)


def hide_masks(root: Path) -> None:
    """Every other patient of a Duke phantom loses the masks, as most of the real ones have none."""
    for folder in sorted({path.parent for path in root.rglob("*.seg.nrrd")})[1::2]:
        shutil.rmtree(folder)


def run_all(chain: list[Command], disk: Path) -> None:
    """Run a chain in order; each command must end with 0."""
    for command in chain:
        words = toy(command, disk)
        assert run(words) == 0, f"{command.page}, {command.section}: {' '.join(words)}"
