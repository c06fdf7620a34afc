#!/usr/bin/env bash
# pydicom 3.0.2 and nibabel 5.4.2: one Enhanced MR file has two sets of intensities, and in one of them by manufacturer.
#
# Enhanced MR states its rescale slope for every frame (Pixel Value Transformation Sequence), and the slopes may differ.
# pydicom's `apply_modality_lut` looks for a slope at the top of the data set alone, finds none, and gives the stored
# values back, without a word: here the second frame is three times too dark beside the first. nibabel's wrapper scales
# each frame by its own slope, but where the manufacturer is Philips and the rescale type is US (unspecified) it gives
# the stored values, too; it warns that comparisons across series may be invalid, while here the frames of one series
# are on two scales. Whoever reads one data set with both tools, or two vendors with one, has two sets of intensities.
# Guess before: both apply the frame's slope, whoever made the scanner.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet pydicom==3.0.2 nibabel==5.4.2 numpy==2.4.6
cd "$place"
venv/bin/python - > seen <<'PY'
import numpy as np
import pydicom
from nibabel.nicom.dicomwrappers import wrapper_from_data
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian


def item(**values):
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def enhanced(manufacturer):
    data = item(
        SOPClassUID=EnhancedMRImageStorage, SOPInstanceUID="1.2.826.0.1.1", Modality="MR", Manufacturer=manufacturer,
        Rows=2, Columns=2, NumberOfFrames=2, SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2",
        BitsAllocated=16, BitsStored=16, HighBit=15, PixelRepresentation=0,
        PixelData=np.full((2, 2, 2), 100, np.uint16).tobytes(),
        DimensionIndexSequence=[item(DimensionIndexPointer=0x00209057)],
        SharedFunctionalGroupsSequence=[
            item(
                PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
                PixelMeasuresSequence=[item(PixelSpacing=[1, 1], SliceThickness=2, SpacingBetweenSlices=2)],
            )
        ],
    )
    data.PerFrameFunctionalGroupsSequence = [
        item(
            FrameContentSequence=[item(StackID="1", InStackPositionNumber=n + 1, DimensionIndexValues=[n + 1])],
            PlanePositionSequence=[item(ImagePositionPatient=[0, 0, 2 * n])],
            PixelValueTransformationSequence=[item(RescaleSlope=slope, RescaleIntercept="0", RescaleType="US")],
        )
        for n, slope in enumerate(("1", "3"))
    ]
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as("enhanced.dcm", enforce_file_format=True)
    return pydicom.dcmread("enhanced.dcm")


for manufacturer in ("SIEMENS", "Philips Medical Systems"):
    data = enhanced(manufacturer)
    print(manufacturer)
    print("  pydicom:", *apply_modality_lut(data.pixel_array, data)[:, 0, 0].astype(int))
    print("  nibabel:", *sorted(np.asarray(wrapper_from_data(data).get_data())[0, 0].astype(int)))
PY
cat seen
diff seen - <<'TEXT'
SIEMENS
  pydicom: 100 100
  nibabel: 100 300
Philips Medical Systems
  pydicom: 100 100
  nibabel: 100 100
TEXT
