"""Rows of titled images in; one PNG out, to see at a glance what a model has learnt.

Legend: C channels, I J K spatial axes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from augengine.report.contact_sheet import upright

Row = tuple[str, Sequence[np.ndarray]]
WINDOW = (-0.15, 1.15)  # images are normalised: 0 is the volume's 10th percentile, 1 its 99th
PANEL_PX, GAP_PX, TITLE_PX, LEAST_WIDTH_PX, DPI = 160, 4, 20, 480, 100


def image_grid(rows: Sequence[Row]) -> bytes:
    """Draw one line of panels per row; rows may differ in length, and images in size.

    Args:
        rows: a title and images of shape (I, J), (C, I, J) or (C, I, J, K). Floating-point ones are normalised and
            drawn in grey, all with one window so that they compare; what is not finite is red. Integer and bool ones
            are labels: 0 is black, and a code has the same colour everywhere. Channels stand side by side; a volume
            shows its middle slice along K.

    Returns:
        The PNG file.
    """
    lines = [[panel for image in images for panel in _panels(image)] for _, images in rows]
    panels = [panel for line in lines for panel in line]
    sizes = np.array([panel.shape[:2] for panel in panels]).max(0)
    zoom = max(1, PANEL_PX // int(sizes.max()))
    tall, wide = sizes * zoom + GAP_PX
    lines_px = tall + TITLE_PX
    canvas = np.ones((len(rows) * lines_px, max(max(map(len, lines)) * wide, LEAST_WIDTH_PX), 3))
    for n, line in enumerate(lines):
        for m, panel in enumerate(line):
            shown = panel.repeat(zoom, axis=0).repeat(zoom, axis=1)
            top, left = n * lines_px + TITLE_PX, m * wide
            canvas[top : top + shown.shape[0], left : left + shown.shape[1]] = shown
    height, width = canvas.shape[:2]
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    figure.figimage(canvas, origin="upper")
    for n, (title, _) in enumerate(rows):
        figure.text(GAP_PX / width, 1 - (n * lines_px + TITLE_PX / 2) / height, title, fontsize=8, va="center")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def _panels(image: np.ndarray) -> list[np.ndarray]:
    """Colours (J, I, 3), between 0 and 1, of each channel's picture."""
    channels = image[None] if image.ndim == 2 else image
    flat = channels[..., channels.shape[-1] // 2] if channels.ndim == 4 else channels
    return [_coloured(upright(channel)) for channel in flat]


def _coloured(picture: np.ndarray) -> np.ndarray:
    if not np.issubdtype(picture.dtype, np.floating):
        codes = picture.astype(int)
        return np.where(codes[..., None] == 0, 0.0, colormaps["tab20"]((codes - 1) % 20)[..., :3])
    low, high = WINDOW
    grey = np.clip((picture - low) / (high - low), 0, 1)[..., None]
    return np.where(np.isfinite(picture)[..., None], grey, np.array([1.0, 0.0, 0.0]))
