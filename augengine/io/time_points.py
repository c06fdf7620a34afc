"""Volumes that stand as subjects of their own go in; which of them look like scans of one patient comes out.

Names alone cannot prove it, so subjects stay as they are; but they are kept in one split, and the user is told.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from augengine.io.sources import Source, SourceOptions, matched

# UPENN-GBM-00001_21, p7-ses2, p7_20190214, p7_2019-02-14, p7_week-000-1, p7_FU003d: a patient's number, and a short
# number, a date or a word for a time.
NUMBER = re.compile(
    r"(.*?\d)[-_./ ](?:\d{1,3}|\d{8}|\d{4}[-_.]\d{2}[-_.]\d{2}|(?:ses|session|visit|v|tp|time|timepoint|t|scan|exam|"
    r"study|day|d|week|w|month|m|year|y|fu|followup)[-_]?\d{1,5}[a-z]?(?:[-_]\d{1,2})?|baseline|bl|pre|post|preop|postop)",
    re.IGNORECASE,
)
# a_t1, a_flair: contrasts of one scan, read one by one.
CONTRAST = re.compile(r"(.+)[-_./ ](?:t1(?:w|c|ce|gd|n)?|t2(?:w|f|star)?|flair|pdw?|dwi|adc|swi)", re.IGNORECASE)
# Numbered folders that hold many patients.
COLLECTION = re.compile(
    r"(batch|brats|cent(er|re)|chunk|cohort|data|dataset|fold|group|hospital|images|part|protocol|release|scanner|set|"
    r"site|test|train|training|v|val|validation)?[-_ ]?\d*|.*data",
    re.IGNORECASE,
)


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
    """Subjects that look like one patient; nobody is, if the user said who the subjects are.

    Patients are told by names (`p7_ses1`, `p7_ses2`) and by numbered folders (`p7/week-000/t1`, `p7/week-012/t1`).
    """
    if options.subject is not None or options.subject_column is not None:
        return TimePoints()
    company = _Company()
    paths = {s.subject_id: next(iter(s.files), s.entry) for s in sources}
    folders = {subject: path.rpartition("/")[0] for subject, path in paths.items()}
    held = Counter(folders.values())
    prefixes = [
        *_by_name({s.subject_id: s.participant or s.entry for s in sources}, company),
        *_by_name({subject: folder for subject, folder in folders.items() if held[folder] == 1}, company),
        *_by_folder(paths, company),
    ]
    groups = company.groups()
    if not groups:
        return TimePoints()
    patients = {subject: min(group) for group in groups for subject in group}
    pattern = _pattern(prefixes, sources, patients)
    step = f"--subject '{pattern}'" if pattern else "--subject REGEX"
    hint = (
        f"{len(patients)} subjects look like {len(groups)} patients with several scans each, by their names. They stay "
        f"in one split; state {step} to make them one subject, and look at it with --preview "
        "(--subject '.+' if each volume is a patient of its own)"
    )
    return TimePoints(patients, hint)


class _Company:
    """Subjects that keep company, in one group or through others."""

    def __init__(self) -> None:
        self._of: dict[str, set[str]] = {}

    def join(self, subjects: Iterable[str]) -> None:
        """Make one group of these and of all that were in company with one of them."""
        whole = {other for subject in subjects for other in self._of.get(subject, {subject})}
        self._of.update(dict.fromkeys(whole, whole))

    def groups(self) -> list[set[str]]:
        """Groups of two and more."""
        return [group for group in {id(g): g for g in self._of.values()}.values() if len(group) > 1]


def _by_name(names: Mapping[str, str], company: _Company) -> list[str]:
    """Join subjects whose names differ by a time or a contrast; what such names begin with."""
    ending = _common_ending(list(names.values()))
    scans: dict[str, list[str]] = defaultdict(list)
    for subject, name in names.items():
        own = name.removesuffix(ending)
        match = CONTRAST.fullmatch(own)
        scans[match.group(1) if match else own].append(subject)
    patients: dict[str, list[str]] = defaultdict(list)
    for scan in scans:
        match = NUMBER.fullmatch(scan)
        if match is not None:
            patients[match.group(1)].append(scan)
    for patient in patients:
        if patient in scans:  # the first scan bears the patient's name alone
            patients[patient].append(patient)
    # One number after another, 001_1 to 001_50, are cases of a site; few numbers of many patients are time points.
    if len(patients) < max(2, *map(len, patients.values()), 0):
        patients = {}
    found = {patient: [s for scan in own for s in scans[scan]] for patient, own in patients.items()}
    found |= {scan: own for scan, own in scans.items() if scan not in found}
    return _joined(found, company)


def _by_folder(paths: Mapping[str, str], company: _Company) -> list[str]:
    """Join subjects of one numbered folder, at the first level where no folder holds more than there are folders."""
    parts = {subject: path.split("/")[:-1] for subject, path in paths.items()}
    for depth in range(1, max(map(len, parts.values()), default=0) + 1):
        found: dict[str, list[str]] = defaultdict(list)
        for subject, folders in parts.items():
            name = folders[depth - 1] if len(folders) >= depth else ""
            if re.search(r"\d", name) and not COLLECTION.fullmatch(name):
                found["/".join(folders[:depth])].append(subject)
        most = max(map(len, found.values()), default=0)
        if most > 1 and len(found) >= most:
            return _joined(found, company)
    return []


def _joined(found: Mapping[str, list[str]], company: _Company) -> list[str]:
    several = {name: subjects for name, subjects in found.items() if len(subjects) > 1}
    for subjects in several.values():
        company.join(subjects)
    return list(several)


def _common_ending(names: Sequence[str]) -> str:
    """Words without a number with which most names end: `_brain` of `p1_brain` and `p2_brain`."""
    ending = ""
    while len(names) > 1:
        words = Counter(
            word.group() for name in names if (word := re.search(rf"[-_. ][A-Za-z]+{re.escape(ending)}$", name))
        )
        longer, count = words.most_common(1)[0] if words else ("", 0)
        if 2 * count <= len(names):
            break
        ending = longer
    return ending


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
