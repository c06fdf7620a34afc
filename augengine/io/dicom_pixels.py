"""A DICOM file and frame numbers go in; intensities after rescale, and what the scanner did not measure, come out.

Stored values become right in this order: bits that do not belong to them are cleared (PS3.5, 8.1.1: bits above the
high bit may hold an overlay, and need not repeat the sign), padding is found among the stored values (PS3.3,
C.7.5.1.1.2), then each frame's own slope and intercept are applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.pixels import iter_pixels
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from augengine.errors import DataError
from augengine.io.dicom_frames import Frame, frames_of
from augengine.io.dicom_header import read_header


@dataclass(frozen=True, eq=False)
class Image:
    """A frame with pixels.

    Attributes:
        pixels: float32 `(rows, columns)`, after rescale.
        outside: bool of the same shape, padding; None where the file states no padding value.
        foreign: how many pixels held something else, such as an overlay, in bits that are not theirs.
    """

    frame: Frame
    pixels: np.ndarray
    outside: np.ndarray | None = None
    foreign: int = 0


def read_images(path: Path, indices: Sequence[int] | None = None) -> list[Image]:
    """Frames of a file with pixels; compressed transfer syntaxes are decoded.

    Args:
        indices: of the frames of a multi-frame file; None for all.

    Raises:
        DataError: pixels missing, cut off or not decodable, or fewer frames than asked for.
    """
    dataset = read_header(path, pixels=True)
    if dataset is None:
        raise DataError("this DICOM file must not change while it is read")
    try:
        frames = frames_of(dataset, path).frames
    except DataError:
        raise
    except Exception as error:  # values that are not what their VR says raise many unrelated classes
        raise DataError("this DICOM file is damaged", found=type(error).__name__) from None
    wanted = range(len(frames)) if indices is None else indices
    if any(n >= len(frames) for n in wanted):
        raise DataError("this DICOM file must not change while it is read", found=f"{len(frames)} frames")
    _state_syntax(dataset)
    try:
        which = list(wanted) if len(frames) > 1 else None
        arrays = list(iter_pixels(dataset, indices=which, raw=True, correct_unused_bits=False))
    except Exception as error:  # decoders raise many unrelated classes for damaged files
        raise DataError(
            "the pixels of a DICOM file cannot be decoded: it is cut off or damaged", found=type(error).__name__
        ) from None
    if len(arrays) != len(wanted):
        raise DataError(
            "a DICOM file must hold as many images as it states frames",
            found=f"{len(arrays)} images, {len(wanted)} frames",
        )
    try:
        return [_image(dataset, frames[n], array) for n, array in zip(wanted, arrays, strict=True)]
    except DataError:
        raise
    except Exception as error:  # values that are not what their VR says raise many unrelated classes
        raise DataError("this DICOM file is damaged", found=type(error).__name__) from None


def _image(dataset: Any, frame: Frame, array: np.ndarray) -> Image:
    stored, outside, foreign = array, None, 0
    if "PixelData" in dataset:  # whole numbers; float pixels have no unused bits
        words = _words(array)
        stored, foreign = stored_values(dataset, words)
        outside = padding(dataset, words, stored)
    pixels = stored.astype(np.float32) * np.float32(frame.slope) + np.float32(frame.intercept)
    return Image(frame, pixels, outside, foreign)


def stored_values(dataset: Any, words: np.ndarray) -> tuple[np.ndarray, int]:
    """Pixels of a data set, from the words (unsigned) that hold them: the stored bits alone, the sign extended.

    Returns:
        The pixels, and in how many words the bits above were neither empty nor a repeated sign.
    """
    allocated, stored = 8 * words.dtype.itemsize, int(dataset.BitsStored)
    signed = int(dataset.get("PixelRepresentation") or 0) == 1
    syntax = dataset.file_meta.TransferSyntaxUID
    # Decoders of compressed images put the lowest bit first, whatever the high bit says.
    native = syntax == RLELossless or not syntax.is_compressed
    high = int(dataset.get("HighBit") or stored - 1) if native else stored - 1
    above, below = allocated - 1 - high, high + 1 - stored
    if not 0 < stored <= allocated or above < 0 or below < 0:
        raise DataError("bits stored must fit into bits allocated", found=f"{stored} of {allocated}, high bit {high}")
    if above + below == 0:
        return words.view(_kind(words, "i")) if signed else words, 0
    shifted = words << words.dtype.type(above)
    kept = shifted.view(_kind(words, "i")) if signed else shifted
    unused = words >> words.dtype.type(high + 1) if above else words * 0
    foreign = unused != 0
    if signed and above:
        foreign &= unused != 2**above - 1
    return kept >> kept.dtype.type(above + below), int(np.count_nonzero(foreign))


def padding(dataset: Any, words: np.ndarray, stored: np.ndarray) -> np.ndarray | None:
    """bool: pixels between PixelPaddingValue and its range limit; None where no padding value is stated.

    The padding value may use bits that the pixels do not: a word that equals it bit by bit is padding, too.
    """
    first = _padding_value(dataset, "PixelPaddingValue", stored)
    if first is None:
        return None
    limit = _padding_value(dataset, "PixelPaddingRangeLimit", stored)
    low, high = sorted((first, first if limit is None else limit))
    same = words == words.dtype.type(first & np.iinfo(words.dtype).max)
    return np.asarray(same | ((stored >= low) & (stored <= high)))


def _padding_value(dataset: Any, keyword: str, stored: np.ndarray) -> int | None:
    """The value with the sign of the pixels, whatever VR it was written with."""
    value: Any = dataset.get(keyword)
    if isinstance(value, bytes):  # VR UN
        value = int.from_bytes(value, "little") if value else None
    if value is None or value == "":
        return None
    size = 8 * stored.dtype.itemsize
    bits = int(value) & (2**size - 1)
    negative = stored.dtype.kind == "i" and bits >= 2 ** (size - 1)
    return int(bits - 2**size if negative else bits)


def _words(array: np.ndarray) -> np.ndarray:
    """The same bits in native byte order, unsigned."""
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return native.view(_kind(native, "u"))


def _kind(array: np.ndarray, kind: str) -> np.dtype:
    return np.dtype(f"{kind}{array.dtype.itemsize}")


def _state_syntax(dataset: Any) -> None:
    """Give a data set without file meta information the transfer syntax that its first bytes showed.

    Raises:
        DataError: compressed pixels, whose syntax nothing tells.
    """
    if getattr(dataset.file_meta, "TransferSyntaxUID", None):
        return
    if "PixelData" in dataset and dataset["PixelData"].is_undefined_length:
        raise DataError("compressed pixels need a stated transfer syntax", found="no file meta information")
    implicit, little = dataset.original_encoding
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
