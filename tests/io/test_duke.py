"""Duke: both TCIA layouts, the choice of the pre-contrast series, masks of every kind, and the tables."""

from pathlib import Path

import nrrd
import numpy as np
import pytest
from mri_files import block, edit, write_nifti, write_series
from reading import scanned

from augengine.errors import ConfigError, DataError
from augengine.io.duke_tables import clinical_by_patient, clinical_differences, legend
from augengine.io.layouts import open_layout
from augengine.io.sources import Source, SourceOptions
from augengine.pipeline.ingest_plan import plan_ingest
from augengine.records import Acquisition, Sample

PATIENT = "Breast_MRI_007"
PRE, POST, T1, SEG = ("1.3.6.1.4.1.14519.5.2.1.1", "1.3.6.1.4.1.14519.5.2.1.2", "1.3.6.1.4.1.1", "1.3.6.1.4.1.9")
BREAST = np.zeros((12, 10, 6), np.uint8)
BREAST[2:10, 2:9, 1:5] = 1
DENSE = np.zeros_like(BREAST)
DENSE[4:6, 4:7, 2:4] = 1
VESSELS = np.zeros_like(BREAST)
VESSELS[8, 3:8, 3] = 1
EXPECTED = np.where(DENSE, 2, BREAST)


def write_study(root: Path, layout: str = "classic", pre: str = "ax dyn pre", post: str = "ax dyn 1st pass") -> Path:
    """Pre, post, another T1 and a segmentation object, in one of TCIA's two ways of naming folders."""
    study = root / "Duke-Breast-Cancer-MRI" / PATIENT
    descriptive = {
        PRE: "3.000000-ax dyn pre-1",
        POST: "4.000000-ax dyn 1st pass-2",
        T1: "26.000000-ax t1 tse c-58582",
        SEG: "300.000000-Segmentation-12345",
    }
    top = "1.3.6.1.4.1.77" if layout == "classic" else "01-01-1990-NA-MRI BREAST BILATERAL WWO-97538"
    for uid, description, time, seed, extra in (
        (PRE, pre, "101500", 1, {}),
        (POST, post, "101900", 2, {}),
        (T1, "ax t1 tse", "100000", 3, {"EchoTime": "12"}),
        (SEG, "Segmentation", "120000", 4, {"Modality": "SEG"}),
    ):
        folder = study / top / (uid if layout == "classic" else descriptive[uid])
        write_series(
            folder,
            block(seed=seed),
            series=uid,
            PatientID=PATIENT,
            SeriesDescription=description,
            AcquisitionTime=time,
            SeriesNumber=str(seed),
            **extra,
        )
    return study


def segmentation(path: Path, array: np.ndarray, names: dict[str, tuple[int, int]] | None) -> None:
    """A `.seg.nrrd` on the image's grid; `names`: segment -> (value, layer)."""
    directions = np.array([[0.8, 0, 0], [0, 0.9, 0], [0, 0, 3.0]])
    header: dict[str, object] = {"space": "left-posterior-superior", "space origin": [-30.0, -20.0, 5.0]}
    header["space directions"] = np.vstack([[np.nan] * 3, directions]) if array.ndim == 4 else directions
    for n, (name, (value, layer)) in enumerate((names or {}).items()):
        header |= {f"Segment{n}_Name": name, f"Segment{n}_LabelValue": str(value), f"Segment{n}_Layer": str(layer)}
    path.parent.mkdir(parents=True, exist_ok=True)
    nrrd.write(str(path), array, header)


def masks(root: Path, tissue: np.ndarray, names: dict[str, tuple[int, int]] | None) -> None:
    folder = root / "Segmentation_Masks_NRRD" / PATIENT
    segmentation(folder / f"Segmentation_{PATIENT}_Breast.seg.nrrd", BREAST, names and {"Breast": (1, 0)})
    segmentation(folder / f"Segmentation_{PATIENT}_Dense_and_Vessels.seg.nrrd", tissue, names)


def scan(root: Path, **options: object) -> tuple[Source, Sample | None, list[str]]:
    reader, _ = open_layout(root, "auto", SourceOptions(**options))
    (source,) = scanned(reader)
    if source.error is not None:
        return source, None, []
    volume = reader.read(source)
    return source, volume.sample, list(volume.notes)


@pytest.mark.parametrize("layout", ["classic", "descriptive"])
def test_both_layouts_give_the_same_sample(tmp_path: Path, layout: str) -> None:
    write_study(tmp_path, layout)
    masks(tmp_path, np.where(DENSE, 2, VESSELS), {"Vessels": (1, 0), "Dense": (2, 0)})
    source, sample, _ = scan(tmp_path)
    assert sample is not None
    assert (source.subject_id, sample.volume_id) == (PATIENT, PATIENT)
    assert "pre-contrast series by series description" in source.notes
    np.testing.assert_array_equal(sample.image[0], block(seed=1))
    np.testing.assert_array_equal(sample.label, EXPECTED)
    assert dict(sample.labels) == {"fat": 1, "fibroglandular": 2}


@pytest.mark.parametrize(
    ("tissue", "names"),
    [
        (np.where(DENSE, 1, 2 * VESSELS), {"Dense": (1, 0), "Vessels": (2, 0)}),  # swapped, as patient 686
        (np.stack([VESSELS, DENSE]), {"Vessels": (1, 0), "Dense tissue": (1, 1)}),  # two layers
        (np.stack([DENSE, VESSELS]), {"Vessels": (1, 1), "FGT": (1, 0)}),
        (np.where(DENSE, 2, VESSELS), None),  # nothing named: the convention
    ],
)
def test_segments_are_known_by_their_header(
    tmp_path: Path, tissue: np.ndarray, names: dict[str, tuple[int, int]]
) -> None:
    write_study(tmp_path)
    masks(tmp_path, tissue.astype(np.uint8), names)
    _, sample, notes = scan(tmp_path)
    assert sample is not None
    np.testing.assert_array_equal(sample.label, EXPECTED)
    assert any("convention" in n for n in notes) == (names is None)


def test_masks_are_aligned_by_geometry(tmp_path: Path) -> None:
    write_study(tmp_path)
    # The paper's own masks: NIfTI in RAS with slices the other way round.
    affine = np.diag([-0.8, -0.9, -3.0, 1.0])
    affine[:3, 3] = 30, 20, 5 + 3 * 5
    write_nifti(tmp_path / "masks" / f"{PATIENT}.nii.gz", EXPECTED[:, :, ::-1].astype(np.uint8), affine)
    _, sample, notes = scan(tmp_path)
    assert sample is not None
    np.testing.assert_array_equal(sample.label, EXPECTED)
    assert "resampled" in notes[0]


def test_several_segments_of_one_tissue_are_one_mask(tmp_path: Path) -> None:
    write_study(tmp_path)
    right = np.zeros_like(DENSE)
    right[8, 3:6, 2:4] = 1
    folder = tmp_path / "Segmentation_Masks_NRRD" / PATIENT
    halves = np.where(np.arange(12)[:, None, None] < 6, BREAST, 2 * BREAST)
    names = {"Breast left": (1, 0), "Breast right": (2, 0)}
    segmentation(folder / f"Segmentation_{PATIENT}_Breast.seg.nrrd", halves.astype(np.uint8), names)
    tissue = DENSE + 2 * right + 3 * (VESSELS & ~right)
    names = {"Dense left": (1, 0), "Dense right": (2, 0), "Vessels": (3, 0)}
    segmentation(folder / f"Segmentation_{PATIENT}_Dense_and_Vessels.seg.nrrd", tissue.astype(np.uint8), names)
    _, sample, notes = scan(tmp_path)
    assert sample is not None
    np.testing.assert_array_equal(sample.label, np.where(DENSE | right, 2, BREAST))
    assert "masks of several segments of one tissue joined" in notes


@pytest.mark.parametrize("plain", [False, True])
def test_masks_of_an_old_slicer_state_no_values(tmp_path: Path, plain: bool) -> None:
    write_study(tmp_path)
    folder = tmp_path / "Segmentation_Masks_NRRD" / PATIENT
    for name, layers, names in (
        ("Breast", [BREAST], ["Breast"]),
        ("Dense_and_Vessels", [VESSELS, DENSE], ["Vessels", "Dense"]),
    ):
        array = np.stack(layers)
        path = folder / f"Segmentation_{PATIENT}_{name}.seg.nrrd"
        segmentation(path, array[0] if plain and len(layers) == 1 else array, None)
        data, found = nrrd.read(str(path))
        nrrd.write(str(path), data, {**found, **{f"Segment{n}_Name": v for n, v in enumerate(names)}})
    _, sample, _ = scan(tmp_path)
    assert sample is not None
    np.testing.assert_array_equal(sample.label, EXPECTED)
    data, found = nrrd.read(str(path))
    nrrd.write(str(path), data[0], {**found, "space directions": found["space directions"][1:]})
    with pytest.raises(DataError, match="a layer each; found 2 segments in 1 layers"):
        scan(tmp_path)


def test_a_mask_that_is_lost_by_resampling_is_refused(tmp_path: Path) -> None:
    write_study(tmp_path)
    masks(tmp_path, np.where(DENSE, 2, VESSELS), {"Vessels": (1, 0), "Dense": (2, 0)})
    path = tmp_path / "Segmentation_Masks_NRRD" / PATIENT / f"Segmentation_{PATIENT}_Breast.seg.nrrd"
    data, found = nrrd.read(str(path))
    origin = np.array(found["space origin"])
    origin[0] += 5 * 0.8  # half of the breast lies beyond the image
    nrrd.write(str(path), data, {**found, "space origin": origin})
    with pytest.raises(DataError, match=r"\d\d% of the breast mask lost"):
        scan(tmp_path)
    _, sample, notes = scan(tmp_path, max_label_loss=0.7)
    assert sample is not None
    assert any("mm³ became" in n for n in notes)


def test_masks_that_are_links_and_lie_deeper(tmp_path: Path) -> None:
    write_study(tmp_path / "in")
    masks(tmp_path / "store", np.where(DENSE, 2, VESSELS), {"Vessels": (1, 0), "Dense": (2, 0)})
    target = tmp_path / "in" / "PKG" / "Segmentation_Masks_NRRD" / PATIENT
    target.mkdir(parents=True)
    for path in (tmp_path / "store").rglob("*.nrrd"):
        (target / path.name).symlink_to(path)
    (target / "readme.txt").write_text("no image, and no second folder of the patient")
    source, sample, _ = scan(tmp_path / "in")
    assert sample is not None
    np.testing.assert_array_equal(sample.label, EXPECTED)
    assert len([f for f in source.files if f.endswith(".nrrd")]) == 2


@pytest.mark.parametrize("where", ["in/elsewhere", "elsewhere"])
def test_a_stated_folder_of_masks(tmp_path: Path, where: str) -> None:
    write_study(tmp_path / "in")
    folder = tmp_path / where
    folder.mkdir()
    with pytest.raises(ConfigError, match="--masks must hold a mask of one of the patients; found none of 1"):
        scan(tmp_path / "in", masks_root=folder)
    masks(folder, np.where(DENSE, 2, VESSELS), {"Vessels": (1, 0), "Dense": (2, 0)})
    (folder / "Segmentation_Masks_NRRD" / PATIENT / "notes.txt").write_text("x")
    reader, _ = open_layout(tmp_path / "in", "auto", SourceOptions(masks_root=folder))
    (entry,) = reader.listing().entries
    (source,) = reader.scan(entry).sources
    np.testing.assert_array_equal(reader.read(source).sample.label, EXPECTED)
    assert plan_ingest(tmp_path / "in", "duke", SourceOptions(masks_root=folder), inline=True).files()["used"] == 8


def test_stated_labels_need_a_mask(tmp_path: Path) -> None:
    write_study(tmp_path)
    with pytest.raises(ConfigError, match="labels are stated, but none of the patients has a mask"):
        scan(tmp_path, labels={"fat": 1, "fibroglandular": 2})


def test_a_patient_without_masks_beside_one_with_masks_is_noted(tmp_path: Path) -> None:
    study = write_study(tmp_path)
    masks(tmp_path, np.where(DENSE, 2, VESSELS), {"Vessels": (1, 0), "Dense": (2, 0)})
    other = study.parent / "Breast_MRI_008"
    for n, path in enumerate(sorted(study.rglob(f"{PRE}/*.dcm"))):
        target = other / "study" / "pre" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
        edit(target, PatientID="Breast_MRI_008", SeriesInstanceUID="1.2.8", SOPInstanceUID=f"1.2.8.{n}")
    reader, _ = open_layout(tmp_path, "auto", SourceOptions())
    with_masks, without = scanned(reader)
    assert "no mask of this patient was found, though others have one" in without.notes
    assert not any("no mask" in n for n in with_masks.notes)


def test_patient_without_masks_and_unnamed_segments(tmp_path: Path) -> None:
    write_study(tmp_path)
    _, sample, _ = scan(tmp_path)
    assert sample is not None
    assert sample.label is None
    masks(tmp_path, DENSE, {"Lymph node": (1, 0), "Other": (2, 0)})
    with pytest.raises(DataError, match="segment's name"):
        scan(tmp_path)


def test_temporal_order_where_no_description_tells(tmp_path: Path) -> None:
    write_study(tmp_path, pre="Ax Vibrant MultiPhase", post="Ph1/Ax Vibrant MultiPhase")
    source, sample, _ = scan(tmp_path)
    assert sample is not None
    assert "pre-contrast series by temporal order" in source.notes
    np.testing.assert_array_equal(sample.image[0], block(seed=1))


def test_an_unreadable_pre_contrast_series_is_not_replaced_by_another(tmp_path: Path) -> None:
    study = write_study(tmp_path)
    for path in study.rglob(f"{PRE}/*.dcm"):
        path.write_bytes(path.read_bytes()[:300])
    assert "unreadable" in str(scan(tmp_path)[0].error)


def mapping(path: Path, uid: str) -> Path:
    rows = ["original_path_and_filename,classic_path,descriptive_path"]
    for phase, series in (("post_1", POST), ("pre", uid)):
        original = f"DICOM_Images/{PATIENT}/{phase}/{PATIENT}_{phase}_005.dcm"
        rows.append(f"{original},Duke-Breast-Cancer-MRI/{PATIENT}/1.3.6.1/{series}/1-005.dcm,a/b/c/1-005.dcm")
    path.write_text("\n".join(rows))
    return path


def test_mapping_table_decides(tmp_path: Path) -> None:
    write_study(tmp_path / "data", "descriptive", pre="wrongly named", post="ax pre ?")
    source, sample, _ = scan(tmp_path / "data", mapping=mapping(tmp_path / "mapping.csv", PRE))
    assert sample is not None
    assert "pre-contrast series by mapping table" in source.notes
    np.testing.assert_array_equal(sample.image[0], block(seed=1))
    source, _, _ = scan(tmp_path / "data", mapping=mapping(tmp_path / "mapping.csv", "1.2.3"))
    assert "mapping table must name" in str(source.error)


def test_mapping_tables_as_spreadsheets_leave_them(tmp_path: Path) -> None:
    write_study(tmp_path / "data", "descriptive", pre="wrongly named", post="ax pre ?")
    table = mapping(tmp_path / "data" / "mapping.csv", PRE)
    text = table.read_text()
    for changed in (
        "\ufeff" + text.replace("\n", "\r\n"),
        text.replace("/", "\\"),
        text.replace(",", " , ").replace("/pre/", "/Pre/"),
    ):
        table.write_text(changed, encoding="utf-8", newline="")
        source, sample, _ = scan(tmp_path / "data", mapping=table)
        assert sample is not None, source.error
        np.testing.assert_array_equal(sample.image[0], block(seed=1))
        _, listing = open_layout(tmp_path / "data", "auto", SourceOptions(mapping=table))
        assert listing.shared == ["mapping.csv"]
    table.write_text(text.replace("/pre/", "/post_2/"))
    with pytest.raises(ConfigError, match="rows of 'pre' images"):
        scan(tmp_path / "data", mapping=table)


@pytest.mark.parametrize("name", ["mapping", "clinical", "boxes"])
def test_a_table_must_name_one_of_the_patients(tmp_path: Path, name: str) -> None:
    write_study(tmp_path / "data")
    head = "Patient ID,Start Row,End Row,Start Column,End Column,Start Slice,End Slice\n"
    table = mapping(tmp_path / "table.csv", PRE)
    texts = {
        "mapping": table.read_text(),
        "clinical": CLINICAL.format(vendor=2, tr=4),
        "boxes": f"{head}{PATIENT},1,2,1,2,1,2\n",
    }
    table.write_text(texts[name])
    assert scan(tmp_path / "data", **{name: table})[0].error is None
    table.write_text(texts[name].replace(PATIENT, "Breast_MRI_900"))
    with pytest.raises(ConfigError, match=f"--{name} must name one of the patients; found none of 1"):
        scan(tmp_path / "data", **{name: table})


def test_ambiguous_and_foreign_series_fail_with_the_reason(tmp_path: Path) -> None:
    study = write_study(tmp_path, pre="dyn pre", post="pre again")
    assert "found series 1, 2" in str(scan(tmp_path)[0].error)
    edit(next(study.rglob(f"{T1}/1-899.dcm")), PatientID="DOE^JANE")
    error = str(scan(tmp_path)[0].error)
    assert "PatientID" in error
    assert "DOE" not in error


CLINICAL = (
    "Patient Information,,,,\n"
    '"Patient ID","Manufacturer","Slice Thickness ","Flip Angle \n","TR (Repetition Time)","Field Strength (Tesla)"\n'
    ',"GE MEDICAL SYSTEMS=0\nMPTronic software=1\nSIEMENS=2","2 = 0\n3= 1 ","10=0\n12 = 1","","1.5=0\n3= 1"\n'
    f"{PATIENT},{{vendor}},1,0,{{tr}},1\n"
)


def test_clinical_table_cross_checks(tmp_path: Path) -> None:
    write_study(tmp_path / "data")
    table = tmp_path / "clinical.csv"
    for vendor, tr, differences in (("2", "4.12", 0), ("0", "5.9", 2)):
        table.write_text(CLINICAL.format(vendor=vendor, tr=tr))
        notes = [n for n in scan(tmp_path / "data", clinical=table)[0].notes if "differs" in n]
        assert len(notes) == differences, notes
    assert clinical_by_patient(table)[PATIENT]["slice_thickness_mm"] == "3"
    table.write_text("Patient ID,Manufacturer\n1,2\n")
    with pytest.raises(ConfigError, match="row 2"):
        clinical_by_patient(table)
    assert legend("0=a, 1= b ") == {"0": "a", "1": "b"}
    assert clinical_differences({"flip_angle_deg": "10 degrees"}, Acquisition(flip_angle_deg=10)) == []
    stated = {"manufacturer": "GE MEDICAL SYSTEMS", "model": "Signa HDxt", "field_strength_t": "3"}
    assert clinical_differences(stated, Acquisition("GE Healthcare", "SIGNA_HDxt", 2.8936)) == []
    (note,) = clinical_differences({"field_strength_t": "T"}, Acquisition(field_strength_t=3.0))
    assert "field_strength_t is 3.0 in the header" in note


def test_boxes_outside_the_image_are_noted(tmp_path: Path) -> None:
    write_study(tmp_path / "data")
    table = tmp_path / "boxes.csv"
    head = "Patient ID,Start Row,End Row,Start Column,End Column,Start Slice,End Slice\n"
    for end_row, outside in ((10, False), (11, True)):  # 10 rows, 12 columns, 1-based
        table.write_text(f"{head}{PATIENT},1,{end_row},2,12,1,6\n")
        assert any("outside" in n for n in scan(tmp_path / "data", boxes=table)[2]) == outside
    table.write_text(head.replace("End Slice", "Last") + f"{PATIENT},1,2,3,4,5,6\n")
    with pytest.raises(ConfigError, match="table of boxes"):
        scan(tmp_path / "data", boxes=table)
