"""An nnU-Net trainer that draws augmented cases in a set ratio to real ones, and each case by its weight.

Point `nnUNet_extTrainer` at this folder and train with `-tr AugengineTrainer`. Ratio and weights stand in
`dataset.json` under `augengine`: `sampling_ratio` is the number of augmented cases drawn for each real one
(null: all cases alike), `weights` has the weight of a case where it is not 1. Validation is nnU-Net's own.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

module: Any = sys.modules[nnUNetTrainer.__module__]


class AugengineTrainer(nnUNetTrainer):  # type: ignore[misc]
    """nnU-Net's default training with weighted sampling of training cases."""

    def get_tr_and_val_datasets(self) -> Any:
        """As nnU-Net's; the training set is remembered."""
        training, validation = super().get_tr_and_val_datasets()
        self.training_data = training
        return training, validation

    def get_dataloaders(self) -> Any:
        """As nnU-Net's, with sampling probabilities, which it has a place for and leaves empty."""
        plain = module.nnUNetDataLoader

        def weighted(data: Any, *args: Any, **options: Any) -> Any:
            if data is self.training_data:
                options["sampling_probabilities"] = self.probabilities(data.identifiers)
            return plain(data, *args, **options)

        module.nnUNetDataLoader = weighted
        try:
            return super().get_dataloaders()
        finally:
            module.nnUNetDataLoader = plain

    def probabilities(self, cases: Any) -> np.ndarray:
        """How often each case is drawn; they sum to 1."""
        about = self.dataset_json.get("augengine", {})
        weights = np.array([float(about.get("weights", {}).get(case, 1.0)) for case in cases])
        made = np.isin(np.asarray(cases), np.asarray(about.get("synthetic", []), dtype=str))
        ratio = about.get("sampling_ratio")
        if ratio is not None and made.any() and not made.all():
            for kind, share in ((made, ratio / (1 + ratio)), (~made, 1 / (1 + ratio))):
                weights[kind] *= share / weights[kind].sum()
        if not weights.sum() > 0:
            raise ValueError("some case must have a weight above 0")
        found: np.ndarray = weights / weights.sum()
        return found


class AugengineTrainerShort(AugengineTrainer):
    """Two epochs of three steps, to see that everything runs."""

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008  (nnU-Net's own)
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 2, 3, 1
