"""Declarations of the arrays of parts, before any work: names, dtypes and shapes, stage by stage."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from schemas.grid import Grid
from schemas.model import TensorSpec
from schemas.picture import PictureSpec
from schemas.pipeline import DecodeStage


@dataclass(frozen=True, slots=True)
class Tensor:
    """Declaration of an array of parts, or of an output of a model.

    `shape` begins with the batch; a free dimension is a name. `ragged`: a row has any number of values, and `shape`
    is `(name, "count", ...)`. `labels`: names of the numbers in an array, or of its columns; `categories`: the category
    of each label, if labels have one. `text`: each row is a text in UTF-8.
    """

    dtype: str
    shape: tuple[int | str, ...]
    ragged: bool = False
    labels: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    text: bool = False


Arrays: TypeAlias = dict[str, Tensor]
"""The arrays of a part after some stage. The first dimension is "F", a row for each frame, or "W", for each window."""

INDEX, FRAME_SIZE, SOURCE_SIZE, SOUND, HEAD = "index", "frame_size", "source_size", "sound", "head"
CONSENT = "consent"  # texts: what allows the voice of a row of sound
UTF8 = ".utf8"  # behind the name of an array of text, among the labels that a format gets


def planned_pictures(pictures: Mapping[str, PictureSpec]) -> Arrays:
    """Return the arrays that decode makes of these pictures; `plane` becomes `plane0` ... `plane3`."""
    arrays: Arrays = {}
    for name, spec in pictures.items():
        if spec.layout == "planes":
            arrays |= {plane_name(name, n): Tensor("uint8", ("F", "H", "W")) for n in range(4)}
        else:
            size = ("H", "W") if spec.size == "source" else spec.size
            arrays[name] = Tensor("uint8", ("F", *size, *((3,) if spec.layout == "rgb" else ())))
    return arrays


def planned_sounds(sounds: Mapping[str, TensorSpec]) -> Arrays:
    """Return the arrays that decode makes of the windows of sound that these inputs of models take."""
    return {name: Tensor(tensor.dtype, ("W", *tensor.shape[1:])) for name, tensor in sounds.items()}


def model_picture_name(stage: str, name: str) -> str:
    """Return the name of the array of the picture that decode makes for the input `name` of a stage's model."""
    return f"pixels@{stage}.{name}"


def model_sound_name(stage: str, name: str) -> str:
    """Return the name of the array of sound that decode makes for the input `name` of a stage's model."""
    return f"{SOUND}@{stage}.{name}"


def is_of_model(name: str) -> bool:
    """Return whether decode makes the picture or the sound of that name for a model."""
    return "@" in name


def plane_name(name: str, number: int) -> str:
    """Return the name of the array of one plane of the picture `name`."""
    return f"{name}{number}"


@dataclass(frozen=True)
class DecodePlan:
    """What decode makes for a pipeline, of these kinds of `media`.

    `resized`: pictures of resize stages; `of_models`: pictures of model inputs; `sounds`: model inputs that are sound.
    """

    stage: DecodeStage
    media: tuple[str, ...]
    grid: Grid
    resized: Mapping[str, PictureSpec]
    of_models: Mapping[str, PictureSpec]
    by_source: bool = False
    """Whether shapes of arrays depend on the size of the frame; then each image is a part of its own."""
    sounds: Mapping[str, TensorSpec] = field(default_factory=dict)

    @property
    def pictures(self) -> dict[str, PictureSpec]:
        """All pictures of each frame."""
        return {**self.resized, **self.of_models}

    @property
    def planes(self) -> bool:
        """Whether the pipeline needs the planes of frames."""
        return any(picture.layout == "planes" for picture in self.pictures.values())

    @property
    def alpha(self) -> bool:
        """Whether the transparency of images is wanted."""
        return any(
            picture.layout in ("planes", "alpha") or picture.background is not None
            for picture in self.pictures.values()
        )

    @property
    def filtered(self) -> bool:
        """Whether a picture is made of all pixels of a frame in RGB, by a filter: swscale's "area" needs no RGB."""
        return any(
            picture.layout == "rgb" and picture.size != "source" and (picture.resize != "area" or picture.fit == "pad")
            for picture in self.pictures.values()
        )

    @property
    def shown(self) -> PictureSpec | None:
        """The picture of the first resize stage, which formats encode; None if there is no resize stage."""
        return next(iter(self.resized.values()), None)
