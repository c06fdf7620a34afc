from pathlib import Path

import pytest

from augengine.errors import ConfigError
from augengine.train.config import read_recipe, starting_level
from augengine.train.loop import rate_factor

SMALL = Path("augengine/recipes/cddgm_small.yaml")


@pytest.mark.parametrize("path", sorted(Path("augengine/recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    assert read_recipe(str(path)).name.replace("-", "_") == path.stem


def test_paper_recipe_holds_the_papers_settings() -> None:
    recipe = read_recipe("cddgm")
    assert (recipe.diffusion.parametrisation, recipe.diffusion.schedule) == ("epsilon", "cosine")
    assert recipe.diffusion.timesteps == 1000
    assert recipe.condition_dropout == 0.15
    optimiser = recipe.optimiser
    assert (optimiser.learning_rate, optimiser.weight_decay, optimiser.batch_size) == (1e-4, 1e-3, 32)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("warmup_steps:", "warmup_stepz:", r"recipe\.yaml:\d+: unknown key 'warmup_stepz'.*mean 'warmup_steps'"),
        ("  structure: true\n  local_curves: 8", "  structure: false", "go together"),
        ("learning_rate: ", "learning_rate: -", r"recipe\.yaml:\d+.*greater than 0"),
        ("parametrisation: x0", "parametrisation: x1", "diffusion.parametrisation"),
        ("norm_groups: ", "norm_groups: 7", "multiple of norm_groups"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(SMALL.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=message):
        read_recipe(str(path))


@pytest.mark.parametrize("name", ["label_ldm", "ldm_seg_controlnet", "dmcie_error"])
def test_what_samples_from_noise_has_a_schedule_that_ends_in_it(name: str) -> None:
    path = f"augengine/recipes/{name}.yaml"
    assert starting_level(read_recipe(path)) is None
    with pytest.raises(ConfigError, match=r"samples from noise, and its schedule keeps a signal of .* too bright"):
        read_recipe(path, ["diffusion.zero_terminal_snr=false"])


def test_what_else_keeps_a_signal_says_what_that_costs() -> None:
    told = starting_level(read_recipe("seg_m3"))
    assert told is not None
    assert "keeps a signal of 0.0064" in told
    assert starting_level(read_recipe(str(SMALL))) is None


def test_the_digest_follows_the_content() -> None:
    recipe = read_recipe(str(SMALL))
    assert recipe.digest == read_recipe(str(SMALL)).digest
    assert recipe.digest != recipe.model_copy(update={"seed": 1}).digest


def test_learning_rate_warms_up_and_falls_to_zero() -> None:
    recipe = read_recipe(str(SMALL))
    warm = recipe.optimiser.warmup_steps
    assert rate_factor(recipe, 0, 0.0) == pytest.approx(1 / warm)
    assert rate_factor(recipe, warm, 0.0) == 1.0
    assert rate_factor(recipe, 10 * warm, 0.5) == pytest.approx(0.5)
    assert rate_factor(recipe, 10 * warm, 1.0) == pytest.approx(0.0)


RECIPES = {path.stem: path for path in sorted(Path("augengine/recipes").glob("*.yaml"))}
# Kind, parts and what else makes each model what it is, by the name that its small recipes begin with.
MODELS = {
    "local_contrast": ("acquisition", set()),
    "cddgm": ("acquisition", set()),
    "pcf_unet": ("counterfactual", set()),
    "pcf_dit": ("counterfactual", {"autoencoder"}),
    "pcf_vae": ("autoencoder", set()),
    "pcf_vae_paper": ("autoencoder", set()),
    "seg_m1": ("painter", set()),
    "seg_m2": ("painter", set()),
    "seg_m3": ("painter", set()),
    "seg_m3_paper": ("painter", set()),
    "label_autoencoder": ("autoencoder", set()),
    "label_ldm": ("label_prior", {"autoencoder"}),
    "ldm_seg_controlnet": ("label_segmenter", {"prior"}),
    "dmcie_error": ("error_corrector", {"fold_0", "fold_1"}),
    "iap_predictor": ("acquisition_predictor", set()),
    "referee": ("segmenter", set()),
    "unet3d": ("segmenter", set()),
    "unet": ("segmenter", set()),
    "unet_duke": ("segmenter", set()),
    "structure_duke": ("acquisition", set()),
    "labeller_duke": ("segmenter", set()),
}


def base(stem: str) -> str:
    return stem.removesuffix("_small").removesuffix("_3d")


def test_every_model_has_a_paper_size_and_a_phantom_size() -> None:
    assert {base(stem) for stem in RECIPES} == set(MODELS)
    paper = {stem for stem in RECIPES if not stem.endswith("_small")} - {"local_contrast"}  # one size fits all data
    assert paper == set(MODELS) - {"unet", "local_contrast"}  # the slices' stand-in for unet3d, which has no paper
    # The small ones of these two are cddgm_small and, with random contrast, unet_duke_small.
    assert {f"{stem}_small" for stem in paper - {"structure_duke", "labeller_duke"}} <= set(RECIPES)
    assert {"label_ldm_3d_small", "ldm_seg_controlnet_3d_small", "label_autoencoder_3d_small"} <= set(RECIPES)


@pytest.mark.parametrize("stem", RECIPES)
def test_kinds_and_parts_are_those_of_the_model(stem: str) -> None:
    recipe = read_recipe(str(RECIPES[stem]))
    assert (recipe.kind, set(recipe.parts)) == MODELS[base(stem)]
    assert all(uri is None for uri in recipe.parts.values()), "folders of parts come from the command line"
    ablation = {"seg_m1": None, "seg_m2": "none", "seg_m3": "unknown", "seg_m3_paper": "paper"}
    assert (recipe.mask.ablation if recipe.mask else None) == ablation.get(base(stem))
    assert recipe.max_minutes is None, "a slow machine and a fast one are to reach the same weights"


@pytest.mark.parametrize(
    ("stem", "override", "message"),
    [
        ("seg_m2", "network.body=autoencoder_kl", "unknown key|autoencoder_kl"),
        ("referee", "diffusion={parametrisation: x0, schedule: cosine}", "generators, and only they"),
        ("pcf_unet", "diffusion=null", "generators, and only they"),
        ("label_ldm", "parts.prior=null", "takes parts: autoencoder, not prior"),
        ("ldm_seg_controlnet", "parts={}", "needs parts: prior"),
        ("dmcie_error", "parts.autoencoder=null", "takes parts: fold_0, fold_1, not autoencoder"),
        ("referee", "parts.prior=null", "takes parts: none"),
        ("pcf_unet", "mask={}", "only kind painter"),
        ("cddgm", "autoencoding={}", "only it, has a section autoencoding"),
        ("seg_m1", "data.regions={x: [core]}", "data.regions goes with"),
        ("referee", "data.regions={}", "data.regions goes with"),
        ("seg_m3", "data.lesion=[]", "mask-ablated training needs data.lesion"),
        ("seg_m3", "mask.blob=[0.0, 0.2]", "blob is two rising shares"),
        ("seg_m1", "loss.lesion_weight=1", "loss.lesion_weight needs"),
        ("pcf_dit", "loss.lesion_weight=1", "loss.lesion_weight needs"),
        ("referee", "loss.lesion_weight=1", "loss.lesion_weight needs"),
        ("pcf_dit", "data.context=[-1]", "data.context needs"),
        ("label_ldm", "data.context=[-1]", "data.context needs"),
        ("cddgm", "data.fold=[2, 2]", "k from 0 to n - 1"),
        ("cddgm", "hardware={shard: true, channels_last: true}", "exclude each other"),
        ("cddgm", "optimiser.accumulation=5", "multiple of accumulation"),
        ("cddgm", "back_translation={}", "network.body local_contrast and the section back_translation go together"),
        ("local_contrast", "back_translation=null", "go together"),
        ("local_contrast", "diffusion={parametrisation: x0, schedule: cosine}", "but for network.body local_contrast"),
        ("local_contrast", "warp={}", "takes no section warp"),
        ("local_contrast", "hardware.shard=true", "too small for hardware.shard"),
        ("local_contrast", "intensity.foreground=nonzero", "takes intensity.foreground all"),
    ],
)
def test_sections_that_do_not_go_together_are_refused(stem: str, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_recipe(str(RECIPES[stem]), [override])


def test_a_corrector_takes_more_than_two_folds_and_a_painter_takes_context() -> None:
    assert len(read_recipe(str(RECIPES["dmcie_error"]), ["parts.fold_2=null"]).parts) == 3
    assert read_recipe(str(RECIPES["seg_m2"]), ["data.context=[-1, 1]"]).data.context == (-1, 1)


def test_the_digest_leaves_out_where_parts_lie() -> None:
    path = str(RECIPES["pcf_dit"])
    assert read_recipe(path).digest == read_recipe(path, ["parts.autoencoder=/elsewhere"]).digest
