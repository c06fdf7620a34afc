from pathlib import Path

import pytest

from augengine.errors import ConfigError
from augengine.train.config import read_recipe
from augengine.train.loop import rate_factor

SMALL = Path("jobs/recipes/cddgm_small.yaml")


@pytest.mark.parametrize("path", sorted(Path("jobs/recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    assert read_recipe(str(path)).name.replace("-", "_") == path.stem


def test_paper_recipe_holds_the_papers_settings() -> None:
    recipe = read_recipe("jobs/recipes/cddgm.yaml")
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
