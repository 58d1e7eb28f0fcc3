"""What contact sheets are drawn with: their colours, and text."""

from typing import TypeAlias

from engines.outputs.font import text_mask
from engines.part import Array

Rgb: TypeAlias = tuple[int, int, int]

PAPER: Rgb = (20, 21, 24)
BLANK: Rgb = (44, 46, 52)
BRIGHT: Rgb = (232, 232, 236)
DIM: Rgb = (148, 150, 158)
MARK: Rgb = (240, 178, 70)


def write_text(image: Array, left: int, top: int, text: str, colour: Rgb, scale: int) -> None:
    """Draws `text` on `[H, W, 3] uint8`, cut where the image ends."""
    place = image[top : top + 8 * scale, left:]
    mask = text_mask(text, scale)[: place.shape[0], : place.shape[1]]
    place[: mask.shape[0], : mask.shape[1]][mask] = colour


def clipped(text: str, scale: int, width: int) -> str:
    """`text`, or as much of it as fits into `width` pixels."""
    fits = width // (6 * scale)
    return text if len(text) <= fits else f"{text[: fits - 2]}.."
