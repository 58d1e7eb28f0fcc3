"""What a head needs of outputs on a GPU, so that only this is copied to the host.

A head that declares reductions accepts both: outputs as the model gave them, and what the reductions leave of them. The
answer is the same. The host applies no reduction; a GPU applies those whose outputs no other head reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log
from typing import Protocol, TypeAlias, runtime_checkable

from engines.part import Array
from engines.ragged import Ragged

_MARGIN = 0.98  # a score in float16 is off by less than 1 %; what is selected beyond the threshold costs little


@dataclass(frozen=True, slots=True)
class Selection:
    """Keeps the candidates of a detector whose score may exceed a threshold; each output becomes a `Selected`.

    An output is `[N, ..., columns]`, or `[N, columns, A]` with `columns_first`; a candidate has the same place in all
    `outputs`. It stays if one of the values in `columns` of the output `scores` exceeds `least`: as it is, times the
    value in a column of another output (`factor`: its name and the column), or as its share by the softmax over the
    columns `softmax`. This may keep candidates that the decoder drops, and never drops one that the decoder keeps.
    """

    outputs: tuple[str, ...]
    scores: str
    columns: slice
    least: float
    factor: tuple[str, int] | None = None
    softmax: slice | None = None
    columns_first: bool = False


@dataclass(frozen=True, slots=True)
class ClassNumbers:
    """Makes `[N, h, w]` uint8 of scores `[N, C, h, w]` (`channels` 1), `[N, h, w, C]` (`channels` 3) or `[N, h, w]`.

    The number of the highest score, of equal ones the first; of one channel, 1 above `threshold` and else 0.
    """

    output: str
    channels: int
    threshold: float

    @property
    def outputs(self) -> tuple[str, ...]:
        """The one output."""
        return (self.output,)


@dataclass(frozen=True, slots=True)
class ByteValues:
    """Makes uint8 of floats: `engines.heads.planes.byte_values` of `(value - black) / (white - black)`.

    The shape stays; with `channel`, that one channel of the output is kept, `[N, h, w]`. `channels` as in
    `ClassNumbers`.
    """

    output: str
    channels: int
    black: float = 0.0
    white: float = 1.0
    channel: int | None = None

    @property
    def outputs(self) -> tuple[str, ...]:
        """The one output."""
        return (self.output,)


@dataclass(frozen=True, slots=True)
class Stays:
    """Leaves an output `[N, ...]` on the GPU. A slice of its rows stays there; `np.asarray` copies what is left."""

    output: str

    @property
    def outputs(self) -> tuple[str, ...]:
        """The one output."""
        return (self.output,)


Reduction: TypeAlias = Selection | ClassNumbers | ByteValues | Stays


@runtime_checkable
class Reducing(Protocol):
    """A head or a decoder that declares reductions."""

    @property
    def reductions(self) -> Sequence[Reduction]:
        """Reductions of its outputs, each output in one of them at most."""
        ...


@dataclass(frozen=True, slots=True)
class Selected(Ragged):
    """The selected candidates of an output: `values [K, columns]`, by row of the batch and rising place.

    `places [K]`: the number of each among all candidates of its row. `grid`: the shape of those, `[A]` or `[h, w]`.
    """

    places: Array
    grid: tuple[int, ...]


def least_value(threshold: float, activation: str = "none") -> float:
    """A number that every output exceeds whose score exceeds `threshold`, also with the rounding of float16."""
    share = threshold * _MARGIN
    if activation != "sigmoid":
        return share
    return -inf if share <= 0 else inf if share >= 1 else log(share / (1 - share))


def reductions_of(owner: object) -> tuple[Reduction, ...]:
    """The reductions of a head or a decoder; none of one that declares none."""
    return tuple(owner.reductions) if isinstance(owner, Reducing) else ()
