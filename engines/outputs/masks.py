"""Places masks of found objects in the picture, and encodes them as COCO does."""

from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from engines.part import Array


class Region(NamedTuple):
    """Part of a picture: `inside [h, w]` bool, whose first pixel is at (top, left)."""

    top: int
    left: int
    inside: Array


def box_pixels(box: Array, height: int, width: int) -> tuple[int, int, int, int]:
    """Return the nearest pixels of a box, x1, y1, x2, y2; points far outside of the picture are moved nearer."""
    sides = np.array([width, height, width, height])
    left, top, right, bottom = np.rint(np.clip(np.nan_to_num(box), -sides, 2 * sides)).astype(int).tolist()
    return left, top, right, bottom


def placed_mask(mask: Array, box: Array, height: int, width: int) -> Region:
    """Return the region of a mask `[h, w]` (not 0: inside) that spans `box` (x1, y1, x2, y2), in pixels of a picture.

    Values between the mask's pixels are interpolated; values of at least one half are inside.
    """
    left, top, right, bottom = box_pixels(box, height, width)
    left, top = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
    right, bottom = min(max(right, left + 1), width), min(max(bottom, top + 1), height)
    picture = Image.fromarray((mask != 0).astype(np.uint8) * 255)
    scaled = picture.resize((right - left, bottom - top), Image.Resampling.BILINEAR)
    return Region(top, left, np.asarray(scaled) >= 128)


def run_lengths(region: Region, height: int, width: int) -> dict[str, Any]:
    """Return the whole picture's mask as COCO's uncompressed RLE: run lengths of 0 and 1 in turn, column by column.

    Source: https://github.com/cocodataset/cocoapi, common/maskApi.h.
    """
    rows, columns = region.inside.shape
    tall = np.zeros((height, columns), np.bool_)  # of the whole picture's height, because columns follow each other
    tall[region.top : region.top + rows] = region.inside
    flat = np.append(tall.ravel(order="F"), False)
    changes = np.flatnonzero(np.diff(flat, prepend=False)) + region.left * height
    counts = np.diff([0, *changes.tolist(), width * height])
    if len(counts) > 1 and not counts[-1]:
        counts = counts[:-1]  # the mask reaches the last pixel
    return {"size": [height, width], "counts": counts.tolist()}
