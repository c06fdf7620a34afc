"""Cohorts and policies in; a line on the console where they take the package's invented protocols for Duke's, out."""

from __future__ import annotations

from augengine.load import Mixture
from augengine.phantom.brain_cohort import BrainCohort
from augengine.phantom.cohort import Cohort
from augengine.phantom.protocols import INVENTED
from augengine.report.console import console


def say_invented(cohort: Cohort | BrainCohort) -> None:
    """Say it of a cohort; brains have no other protocols."""
    if isinstance(cohort, Cohort) and cohort.protocols is not None:
        console.print(f"protocols of the phantom: {INVENTED}")


def say_invented_targets(mixture: Mixture) -> None:
    """Say it of policies that draw their targets from protocols."""
    targets = (getattr(step.params, "target", None) for member in mixture.members for step in member.steps)
    if any(getattr(target, "invented", False) for target in targets):
        console.print(f"protocols of the policy: {INVENTED}")
