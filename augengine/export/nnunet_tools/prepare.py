"""Plan and preprocess the data set that this file stands in, with nnU-Net; the plan is made on real cases alone.

    python $nnUNet_raw/Dataset501_Name/augengine/prepare.py -c 2d

So an arm with augmented cases has the same patch, batch, spacing and normalisation as one without. `--plans-of DATASET`
takes the plans of another data set in their place.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from nnunetv2.experiment_planning import plan_and_preprocess_api as api
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.plans_for_pretraining.move_plans_between_datasets import move_plans_between_datasets
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

FOLDER = Path(__file__).resolve().parents[1]


def real_only(found: Any) -> None:
    """Take the augmented cases out of what an extractor or a planner looks at."""
    made = set(found.dataset_json.get("augengine", {}).get("synthetic", []))
    found.dataset = {name: files for name, files in found.dataset.items() if name not in made}
    found.dataset_json = {**found.dataset_json, "numTraining": len(found.dataset)}


class RealFingerprint(DatasetFingerprintExtractor):  # type: ignore[misc]
    """The fingerprint of real cases."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        real_only(self)


def real_planner(base: type) -> type:
    """A planner that plans for the number of real cases."""

    class RealPlanner(base):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            real_only(self)

    RealPlanner.__name__ = base.__name__
    return RealPlanner


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", nargs="+", default=["2d", "3d_fullres"], help="configurations")
    parser.add_argument("-np", type=int, default=2, help="processes")
    parser.add_argument("-pl", default="ExperimentPlanner", help="nnU-Net's planner, e.g. nnUNetPlannerResEncM")
    parser.add_argument("--plans-of", help="data set (name or number) whose plans are taken")
    parser.add_argument("--plans-name", default="nnUNetPlans", help="of these")
    asked = parser.parse_args()
    number = int(FOLDER.name[len("Dataset") :].split("_")[0])
    if Path(nnUNet_raw, FOLDER.name).resolve() != FOLDER:
        parser.error(f"nnUNet_raw must be {FOLDER.parent}; found {nnUNet_raw}")
    prepared = Path(nnUNet_preprocessed, FOLDER.name)
    prepared.mkdir(parents=True, exist_ok=True)
    shutil.copy(FOLDER / "splits_final.json", prepared)  # over one of an export that stood here before
    RealFingerprint(number, asked.np).run(overwrite_existing=True)
    plans = asked.plans_name
    if asked.plans_of is None:
        planner = recursive_find_python_class(
            str(Path(api.__file__).parent), asked.pl, "nnunetv2.experiment_planning"
        ) or parser.error(f"nnU-Net has no planner {asked.pl}")
        assert issubclass(planner, ExperimentPlanner)
        _, plans = api.plan_experiment_dataset(number, real_planner(planner))
    else:
        source = int(asked.plans_of) if asked.plans_of.isdecimal() else asked.plans_of
        move_plans_between_datasets(source, number, plans)
        shutil.copy(FOLDER / "dataset.json", prepared)
    api.preprocess_dataset(number, plans, asked.c, [asked.np] * len(asked.c))


if __name__ == "__main__":
    main()
