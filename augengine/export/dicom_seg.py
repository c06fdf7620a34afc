"""Cases in; MR series and their label maps as DICOM Segmentations (LABELMAP) by highdicom, out.

Every image is marked as derived, a synthetic one also by `SyntheticData`, its image type and its descriptions. Frames
without labels are kept: highdicom leaves them out unless told. UIDs and dates follow from the ids alone.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from augengine import __version__
from augengine.errors import ConfigError
from augengine.export.case import Case
from augengine.export.dicom_image import instances, uid
from augengine.export.images import safe
from augengine.export.item import Item
from augengine.export.target import About, File, Unit, by_row_group
from augengine.yaml_config import Strict

_TISSUE = ("85756007", "SCT", "Tissue")
_ALTERED = ("49755003", "SCT", "Morphologically Altered Structure")
# Label to category and type; what is not here is "Tissue".
_CODES = {
    "fat": (_TISSUE, ("55603005", "SCT", "Adipose tissue")),
    "necrosis": (_ALTERED, ("6574001", "SCT", "Necrosis")),
    "oedema": (_ALTERED, ("79654002", "SCT", "Edema")),
    "enhancing": (_ALTERED, ("108369006", "SCT", "Neoplasm")),
    "lesion": (_ALTERED, ("52988006", "SCT", "Lesion")),
}


class DicomSeg(Strict):
    """MR images and Segmentations."""

    name: ClassVar[str] = "dicom-seg"

    def check(self, cases: Sequence[Case], about: About) -> None:
        """Refuse where highdicom is not installed, or nothing is labelled."""
        if importlib.util.find_spec("highdicom") is None:
            raise ConfigError(
                "the target dicom-seg needs highdicom",
                found="not installed",
                next_step="pip install 'augengine[dicom-seg]'",
            )
        if not about.labels:
            raise ConfigError("a DICOM Segmentation needs labels", found="none", where="--labels")

    def units(self, cases: Sequence[Case], about: About) -> Iterable[Unit]:
        """A row group each."""
        return by_row_group(cases)

    def files(self, items: Iterator[Item], unit: str, about: About) -> Iterator[File]:
        """One series per channel, and the label map on the first."""
        for item in items:
            case = item.case
            first: list[Any] = []
            for n, (channel, array) in enumerate(zip(about.channels, item.image, strict=True)):
                series = instances(item, array, channel, n, about.licence)
                first = first or series
                for k, dataset in enumerate(series):
                    yield File(f"images/{case.name}_{n}{safe(channel)}/{k:04d}.dcm", _bytes(dataset), (case.name,))
            if item.label is not None:
                content = _bytes(segmentation(item, first, about))
                yield File(f"segmentations/{case.name}.dcm", content, (case.name,))

    def finish(self, cases: Sequence[Case], about: About, listed: Mapping[str, Sequence[str]]) -> Iterator[File]:
        """Nothing: `export.json` lists the files."""
        return iter(())

    def identity(self) -> dict[str, Any]:
        """All options."""
        return {}


def segmentation(item: Item, sources: Sequence[Any], about: About) -> Any:
    """The label map as a DICOM Segmentation, one frame for each slice, empty ones too."""
    from highdicom.seg import Segmentation

    assert item.label is not None
    case = item.case
    found = Segmentation(
        source_images=sources,
        pixel_array=np.ascontiguousarray(item.label.transpose(2, 1, 0)),
        segmentation_type="LABELMAP",
        segment_descriptions=[_segment(n, name, case) for n, name in enumerate(about.labels, 1)],
        series_instance_uid=uid("segmentation series", case.sample_id),
        series_number=100,
        sop_instance_uid=uid("segmentation", case.sample_id),
        instance_number=1,
        manufacturer="augengine",
        manufacturer_model_name="augengine",
        software_versions=__version__,
        device_serial_number="0",
        omit_empty_frames=False,
        content_label="LABELS",
        content_description="labels of a synthetic image" if case.synthetic else "labels of an image",
        series_description=sources[0].SeriesDescription,
    )
    _settle(found, case)
    return found


def _segment(number: int, name: str, case: Case) -> Any:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription
    from pydicom.sr.coding import Code

    category, kind = _CODES.get(name, (_TISSUE, _TISSUE))
    family = Code("123110", "DCM", "Artificial Intelligence")
    return SegmentDescription(
        number,
        name,
        Code(*category),
        Code(*kind),
        "AUTOMATIC" if case.synthetic else "SEMIAUTOMATIC",
        AlgorithmIdentificationSequence("augengine" if case.synthetic else "not stated", family, __version__),
    )


def _settle(found: Any, case: Case) -> None:
    """Replace what highdicom takes from clocks and chance, and mark what is synthetic."""
    found.InstanceCreationDate = found.ContentDate = found.SeriesDate = "19700101"
    found.InstanceCreationTime = found.ContentTime = found.SeriesTime = "000000"
    organisation = uid("dimensions", case.sample_id)
    for element in found.DimensionOrganizationSequence:
        element.DimensionOrganizationUID = organisation
    for element in found.DimensionIndexSequence:
        element.DimensionOrganizationUID = organisation
    for element in found.get("ContributingEquipmentSequence", ()):
        element.ContributionDateTime = "19700101000000"
    found.SyntheticData = "YES" if case.synthetic else "NO"


def _bytes(dataset: Any) -> bytes:
    sink = io.BytesIO()
    dataset.save_as(sink, enforce_file_format=True)
    return sink.getvalue()
