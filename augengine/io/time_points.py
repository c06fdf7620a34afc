"""Volumes that stand as subjects of their own go in; which of them look like scans of one patient comes out.

Names alone cannot prove it, so subjects stay as they are; but they are kept in one split, and the user is told.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from augengine.io.sources import Source, SourceOptions, matched

# UPENN-GBM-00001_21, p7-ses2, p7_20190214: a patient's number, and a short number, a date or a word for a time.
NUMBER = re.compile(
    r"(.*\d)[-_./ ](?:\d{1,3}|\d{8}|(?:ses|session|visit|v|tp|time|timepoint|t|scan|exam|study|day|d|week|w|month|m|"
    r"year|y|fu|followup)[-_]?\d{1,5}|baseline|bl|pre|post|preop|postop)",
    re.IGNORECASE,
)
# a_t1, a_flair: contrasts of one scan, read one by one.
CONTRAST = re.compile(r"(.+)[-_./ ](?:t1(?:w|c|ce|gd|n)?|t2(?:w|f|star)?|flair|pdw?|dwi|adc|swi)", re.IGNORECASE)


@dataclass(frozen=True)
class TimePoints:
    """What names tell.

    Attributes:
        patients: subject id to the id that its patient is split by; subjects without company are left out.
        hint: for the console; None where there is nothing to say.
    """

    patients: Mapping[str, str] = field(default_factory=dict)
    hint: str | None = None


def time_points(sources: Sequence[Source], options: SourceOptions) -> TimePoints:
    """Subjects that look like one patient; nobody is, if the user said who the subjects are."""
    if options.subject is not None or options.subject_column is not None:
        return TimePoints()
    names = {s.subject_id: s.participant or s.entry for s in sources}
    groups = _groups(names, NUMBER)
    # One number after another, 001_1 to 001_50, are cases of a site; few numbers of many patients are time points.
    most = max((len(group) for group in groups.values()), default=0)
    if len(groups) < max(2, most):
        groups = {}
    groups = {**groups, **_groups(names, CONTRAST)}
    groups = {prefix: group for prefix, group in groups.items() if len(group) > 1}
    if not groups:
        return TimePoints()
    patients = {subject: min(group) for group in groups.values() for subject in group}
    pattern = _pattern(list(groups), sources, patients)
    step = f"--subject '{pattern}'" if pattern else "--subject REGEX"
    hint = (
        f"{len(patients)} subjects look like {len(groups)} patients with several scans each, by their names. They stay "
        f"in one split; state {step} to make them one subject, and look at it with --preview"
    )
    return TimePoints(patients, hint)


def _groups(names: Mapping[str, str], rule: re.Pattern[str]) -> dict[str, list[str]]:
    """Subjects by what stands before the time or the contrast in their names."""
    found: dict[str, list[str]] = defaultdict(list)
    for subject, name in names.items():
        match = rule.fullmatch(name)
        if match is not None:
            found[match.group(1)].append(subject)
    return found


def _pattern(prefixes: Sequence[str], sources: Sequence[Source], patients: Mapping[str, str]) -> str | None:
    """A regular expression that finds just these patients in the paths of all volumes; None if no simple one does."""
    templates = {re.sub(r"\d+", r"\\d+", _escaped(p)) for p in prefixes}
    for template in sorted(templates, key=len, reverse=True):
        for pattern in (template, template.replace("_", "[_/]")):
            found: dict[str, set[str]] = defaultdict(set)
            for source in sources:
                person = matched(pattern, next(iter(source.files), source.entry))
                found[str(person)].add(patients.get(source.subject_id, source.subject_id))
            persons = {patients.get(s.subject_id, s.subject_id) for s in sources}
            if "None" not in found and len(found) == len(persons) and all(len(p) == 1 for p in found.values()):
                return pattern
    return None


def _escaped(text: str) -> str:
    return re.sub(r"([.^$*+?{}\[\]\\|()])", r"\\\1", text)
