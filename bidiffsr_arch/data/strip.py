"""Images side by side in one, to judge a result by eye."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

BAR = 24  # height of the bar that holds a label, pixels
GAP = 4
PAPER = 255
FONT, FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.5


def strip(rows: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    """Arrange images in a table, each under its label: `[{"LR": lr, "bicubic": up, "result": sr, "HR": hr}]`.

    Args:
        rows: for each row a mapping from label to image (BGR uint8 of shape (H, W, 3)). Smaller images of a row are
            upsampled to the size of its largest by nearest neighbour, so that their pixels are visible.

    Returns:
        BGR uint8 image with aligned columns.

    Raises:
        ValueError: no rows, a row without images, or rows of unequal length.
    """
    if not rows or not all(rows):
        raise ValueError("expected at least one row, and at least one image in each")
    table = [_cells(row) for row in rows]
    columns = list(zip(*table, strict=True))
    widths = [max(cell.shape[1] for cell in column) for column in columns]
    lines = [
        np.hstack([_widened(cell, width + GAP) for cell, width in zip(cells, widths, strict=True)]) for cells in table
    ]
    return np.vstack(lines)[:, :-GAP]


def _cells(row: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    size = max(image.shape[1] for image in row.values()), max(image.shape[0] for image in row.values())
    return [_cell(label, cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)) for label, image in row.items()]


def _cell(label: str, image: np.ndarray) -> np.ndarray:
    (text_width, text_height), _ = cv2.getTextSize(label, FONT, FONT_SCALE, thickness=1)
    width = max(image.shape[1], text_width + 2 * GAP)
    bar = np.full((BAR, width, 3), PAPER, np.uint8)
    cv2.putText(
        bar, label, (GAP, (BAR + text_height) // 2), FONT, FONT_SCALE, (0, 0, 0), thickness=1, lineType=cv2.LINE_AA
    )
    return np.vstack([bar, _widened(image, width)])


def _widened(image: np.ndarray, width: int) -> np.ndarray:
    return cv2.copyMakeBorder(image, 0, 0, 0, width - image.shape[1], cv2.BORDER_CONSTANT, value=(PAPER,) * 3)
