"""How a decoded frame becomes a picture for a stage or a model: size, filter, colours, padding and tiles."""

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from schemas.declared import Spec

Side: TypeAlias = Annotated[int, Field(ge=1, le=8192)]
Byte: TypeAlias = Annotated[int, Field(ge=0, le=255)]
Fit: TypeAlias = Literal["stretch", "crop", "letterbox", "pad"]
PadValue: TypeAlias = Byte | Literal["edge"]
PadPlace: TypeAlias = Literal["center", "corner"]
Filter: TypeAlias = Literal["area", "nearest", "bilinear", "bicubic", "lanczos"]
PictureSize: TypeAlias = tuple[Side, Side] | Literal["source"]
Border: TypeAlias = Literal["reflect", "edge"]


class PictureFields(Spec):
    """How a frame is fitted into a picture, in the fields of `PictureSpec` that model cards have, too."""

    multiple: Side = 1
    fit: Fit = "stretch"
    pad_value: PadValue = 0
    pad_place: PadPlace = "center"
    short_side: Side | None = None
    background: Byte | None = None
    resize: Filter = "area"
    antialias: bool = False
    tile: tuple[Side, Side] | None = None
    overlap: int = Field(default=0, ge=0, le=4096)
    border: Border = "reflect"
    align: int = Field(default=1, ge=1, le=64)


class PictureSpec(PictureFields):
    """How a decoded frame becomes an array of bytes, upright.

    `size` is (height, width); "source" keeps the frame's own. `multiple`: a side of a "source" size is padded to a
    multiple of it, right and below, with `pad_value`. `fit`: `stretch` both sides, `crop` the middle, `letterbox`,
    which scales and then pads with `pad_value`, or `pad`, which pads the frame to the shape of `size` and then scales;
    around (`center`) or right and below (`corner`). `pad_value`: a grey level, or `edge`, which repeats the border.
    `short_side`: a frame that is cropped has its short side scaled to this before; None: to the least that fills
    `size`. `background`: the grey level on which transparent pixels of images are laid; None: they keep their colours.

    `resize`: `area` averages what a pixel covers and is bicubic where both sides grow; the others are filters of that
    name. `antialias` widens a filter with the scale, as Pillow and torchvision do; without it a filter looks at its
    nearest neighbours however much the picture shrinks, as OpenCV does.

    `layout`: `rgb` [H, W, 3]; `gray` [H, W], full range; `planes`: each plane of the frame as it is, at "source" size;
    `alpha` [H, W]: how opaque the pixels of an image are, at "source" size, 255 for all other frames.

    `tile`: (height, width); the model takes a picture of "source" size as tiles of exactly this size. `overlap`: source
    pixels at each inner edge of a tile that are context only. A picture that is smaller than a tile is padded right and
    below as `border` says. `align`: tiles begin at multiples of it. See `engines.inference.tiles`.
    """

    size: PictureSize = "source"
    layout: Literal["rgb", "gray", "planes", "alpha"] = "rgb"

    @model_validator(mode="after")
    def _options_fit_together(self) -> Self:
        if self.layout in ("planes", "alpha") and (self.size != "source" or self.multiple != 1):
            raise ValueError(f"layout {self.layout} keeps the size of the frame: leave out size and multiple")
        if self.background is not None and self.layout in ("planes", "alpha"):
            raise ValueError(f"layout {self.layout} keeps transparency: leave out background")
        if self.multiple != 1 and self.size != "source":
            raise ValueError('multiple is for size = "source": leave it out with a fixed size')
        if self.short_side is not None:
            if self.fit != "crop" or self.size == "source":
                raise ValueError('short_side is for fit = "crop" of a fixed size: leave it out')
            if self.short_side < max(self.size):
                raise ValueError(f"short_side is {self.short_side}, and {max(self.size)} pixels are cropped from it")
        return self

    @model_validator(mode="after")
    def _tiles_cover(self) -> Self:
        if self.tile is None:
            if self.overlap or self.border != "reflect" or self.align != 1:
                raise ValueError("overlap, border and align are for tiles: write tile, or leave them out")
            return self
        if self.size != "source" or self.multiple != 1 or self.layout in ("planes", "alpha"):
            raise ValueError('tile is for size = "source" without multiple: every tile has its own size')
        if 2 * self.overlap >= min(self.tile):
            raise ValueError(
                f"overlap is {self.overlap} on both sides, which leaves nothing of a tile of {min(self.tile)}"
            )
        if any((side - 2 * self.overlap) % self.align for side in self.tile):
            raise ValueError(f"a tile without its overlap is no multiple of align = {self.align}")
        return self
