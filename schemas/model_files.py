"""The further files of a model, and its text tower, which is made of some of them."""

from typing import Annotated, TypeAlias

from pydantic import AfterValidator, Field, FiniteFloat

from schemas.declared import FileName, Sha256, Spec


class FileSpec(Spec):
    """A further file of a model: weights, a tokenizer, another graph. Its hash is its name wherever it is stored.

    Weights of a graph lie in the file whose hash the graph has as their location.
    """

    name: FileName
    size: int = Field(ge=0, lt=1 << 53)  # bytes
    sha256: Sha256


def _names_differ(files: tuple[FileSpec, ...]) -> tuple[FileSpec, ...]:
    if len({file.name for file in files}) < len(files):
        raise ValueError("two files have the same name")
    return files


Files: TypeAlias = Annotated[tuple[FileSpec, ...], AfterValidator(_names_differ)]


def bytes_of(files: Files) -> int:
    """Return the number of bytes of these files; those of equal content are stored once."""
    return sum({file.sha256: file.size for file in files}.values())


class TextSpec(Spec):
    """The text tower of a model: its vectors of texts compare with the vectors that the model makes of pictures.

    `graph` and `tokenizer` name further files of the model. A text becomes `length` ids: a longer one is cut, and a
    shorter one is followed by `pad`. `canonical`: before, letters are made small, and ASCII punctuation is left out, as
    open_clip does for SigLIP. `output`: the output of `graph` with the vectors; "": its only one.

    A picture and a text belong together by the score `scale * cosine + bias`: with a `bias` its sigmoid is the
    probability (SigLIP), without one its softmax over several texts (CLIP). None: not known.
    """

    graph: FileName
    tokenizer: FileName
    length: int = Field(ge=2, le=8192)
    pad: int = Field(default=0, ge=0, lt=1 << 31)
    canonical: bool = False
    output: str = ""
    scale: FiniteFloat | None = None
    bias: FiniteFloat | None = None
