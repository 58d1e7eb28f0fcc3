"""Masks of found objects: where they lie in the picture, and as COCO writes them."""

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
    """The nearest pixels of a box, x1, y1, x2, y2; what is far outside of a picture of that size is moved nearer."""
    sides = np.array([width, height, width, height])
    left, top, right, bottom = np.rint(np.clip(np.nan_to_num(box), -sides, 2 * sides)).astype(int).tolist()
    return left, top, right, bottom


def placed_mask(mask: Array, box: Array, height: int, width: int) -> Region:
    """A mask `[h, w]`, not 0 inside, that spans `box` (x1, y1, x2, y2), in pixels of a picture of that size.

    Between the mask's pixels it is interpolated, and what is at least half is inside.
    """
    left, top, right, bottom = box_pixels(box, height, width)
    left, top = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
    right, bottom = min(max(right, left + 1), width), min(max(bottom, top + 1), height)
    picture = Image.fromarray((mask != 0).astype(np.uint8) * 255)
    scaled = picture.resize((right - left, bottom - top), Image.Resampling.BILINEAR)
    return Region(top, left, np.asarray(scaled) >= 128)


def run_lengths(region: Region, height: int, width: int) -> dict[str, Any]:
    """The whole picture's mask as COCO's uncompressed RLE: lengths of runs of 0 and 1 by turns, column by column.

    Source: https://github.com/cocodataset/cocoapi, common/maskApi.h.
    """
    rows, columns = region.inside.shape
    tall = np.zeros((height, columns), np.bool_)  # of the whole picture's height, for columns follow each other
    tall[region.top : region.top + rows] = region.inside
    flat = np.append(tall.ravel(order="F"), False)
    changes = np.flatnonzero(np.diff(flat, prepend=False)) + region.left * height
    counts = np.diff([0, *changes.tolist(), width * height])
    if len(counts) > 1 and not counts[-1]:
        counts = counts[:-1]  # the mask reaches the last pixel
    return {"size": [height, width], "counts": counts.tolist()}
