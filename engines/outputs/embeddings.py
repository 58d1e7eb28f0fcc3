"""embeddings: writes a vector a window to an npz: `embedding [W, D] float32`, with `times`, or the `names` of images.

Vectors have unit length unless `normalise` is false, so that a dot product is the cosine; a vector of zeros is
unchanged. The file is that of the format npz, and has its origin: `models` and their `identities`, the `revision` of
the pipeline, and `sources`: the path of the film, or that of each image; "" where they are not known.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engines.encoding import Encoded, Origin
from engines.options import Options
from engines.outputs.base import BaseFormat, check_rows
from engines.outputs.npz import NpzAssembler
from engines.part import Array, Part, Tick, Value, no_tick
from engines.planned import Tensor
from engines.ragged import Ragged
from engines.vectors import unit
from schemas.errors import PipelineError
from schemas.media import MediaInfo
from schemas.model import describe
from schemas.parts import PartMeta

_HINT = (
    "take a model whose card has a head embed (`rigflow model add FILE --set heads.0.kind=embed`), "
    "or name another array of vectors by encode.array"
)


class EmbeddingsOptions(Options):
    """`array`: the one that holds the vectors, `[W, D]`; whether to `normalise` them."""

    array: str = "embedding"
    normalise: bool = True


class EmbeddingsFormat(BaseFormat[EmbeddingsOptions]):
    """A part's result is its vectors, as `embedding`."""

    options_class = EmbeddingsOptions

    def check(self, arrays: Mapping[str, Tensor], media: Sequence[str]) -> None:
        """Check that there is one array of vectors."""
        self._check_name(arrays)
        found = arrays[self._options.array]
        if len(found.shape) != 2:
            raise self._no_vectors(describe(found.dtype, found.shape))

    def encode(self, part: Part, tick: Tick = no_tick) -> Encoded:
        """Return the part's vectors."""
        windows = len(part.meta.pts)
        if not windows:
            return Encoded({})
        self._check_name(part.arrays)
        held: Mapping[str, Value] = part.arrays
        vectors = held[self._options.array]
        check_rows(self._options.array, vectors, windows)
        if isinstance(vectors, Ragged) or vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
            raise self._no_vectors("rows of other lengths" if isinstance(vectors, Ragged) else _words(vectors))
        return Encoded({"embedding": unit(vectors) if self._options.normalise else vectors.astype(np.float32)})

    def assemble(self, target: Path, media: MediaInfo) -> "EmbeddingsAssembler":
        """Start `<target>.npz`."""
        return EmbeddingsAssembler(target, "npz", media)

    def _check_name(self, arrays: Collection[str]) -> None:
        if self._options.array not in arrays:
            held = ", ".join(f"`{name}`" for name in arrays) or "nothing"
            what = f"format embeddings needs `{self._options.array}`, the part holds {held}"
            raise PipelineError(what, _HINT)

    def _no_vectors(self, found: str) -> PipelineError:
        return PipelineError(f"`{self._options.array}` is {found}", "format embeddings takes numbers [W, D]")


class EmbeddingsAssembler(NpzAssembler):
    """Adds the origin of the vectors."""

    def __init__(self, target: Path, suffix: str, media: MediaInfo) -> None:
        super().__init__(target, suffix, media)
        self._origin = Origin("", {})
        self._inputs = 0  # images so far, those that failed too
        self._places: list[int] = []  # of the images that have vectors, among the job's inputs

    def set_origin(self, origin: Origin) -> None:
        """Take the origin."""
        self._origin = origin

    def add(self, meta: PartMeta, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
        """Spool the part's rows."""
        super().add(meta, arrays, facts)
        self._places += [self._inputs + place for place, item in enumerate(meta.items) if not item.error]
        self._inputs += len(meta.items)

    def close(self) -> list[Path]:
        """Write the file."""
        known = self._origin.sources
        of_rows = known if self.media.timed else [known[at] if at < len(known) else "" for at in self._places]
        self._append_text("models", list(self._origin.models))
        self._append_text("identities", list(self._origin.models.values()))
        self._append_text("revision", [self._origin.revision])
        self._append_text("sources", of_rows or [""] * self.media.timed)
        return super().close()

    def _append_text(self, name: str, texts: Sequence[str]) -> None:
        self._columns.append(name, np.array(texts, np.str_))


def _words(array: Array) -> str:
    return describe(str(array.dtype), array.shape)
