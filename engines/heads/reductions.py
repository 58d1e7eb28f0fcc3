"""Reductions of a model's outputs on a GPU: only what a head needs of them is copied to the host.

A head that declares reductions accepts both: the outputs of the model, and the reduced outputs. Its result is the same.
The host applies no reductions; a GPU applies those of outputs that no other head reads.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf, log
from typing import Protocol, TypeAlias, runtime_checkable

from engines.part import Array
from engines.ragged import Ragged

_MARGIN = 0.98  # float16 rounds a score by less than 1 %; a few candidates more cost little


@dataclass(frozen=True, slots=True)
class Selection:
    """Keeps the candidates of a detector whose score may exceed a threshold; each output becomes a `Selected`.

    An output is `[N, ..., columns]`, or `[N, columns, A]` with `columns_first`; a candidate has the same place in all
    `outputs`. It is kept if a value in `columns` of the output `scores` exceeds `least`. With `factor` (the name of an
    output and its column), the value is multiplied by that column first; with `softmax`, it is the softmax over these
    columns. A candidate that the decoder keeps is never dropped; some that the decoder drops may be kept.
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

    It is the number of the highest score, of equal ones the first; of one channel, 1 above `threshold`, otherwise 0.
    """

    output: str
    channels: int
    threshold: float

    @property
    def outputs(self) -> tuple[str, ...]:
        """The output, as a tuple."""
        return (self.output,)


@dataclass(frozen=True, slots=True)
class ByteValues:
    """Makes uint8 of floats: `engines.heads.planes.byte_values` of `(value - black) / (white - black)`.

    The shape stays the same; with `channel`, only that channel is kept, `[N, h, w]`. With `order`, pictures
    `[N, h, w, len(order)]` are made of these channels, also of an output of bytes, and stay on the GPU. `channels` is
    the axis of channels, as in `ClassNumbers`.
    """

    output: str
    channels: int
    black: float = 0.0
    white: float = 1.0
    channel: int | None = None
    order: tuple[int, ...] = ()

    @property
    def outputs(self) -> tuple[str, ...]:
        """The output, as a tuple."""
        return (self.output,)


@dataclass(frozen=True, slots=True)
class Stays:
    """Leaves an output `[N, ...]` on the GPU. Slices of its rows stay there, too; `np.asarray` copies them."""

    output: str

    @property
    def outputs(self) -> tuple[str, ...]:
        """The output, as a tuple."""
        return (self.output,)


Reduction: TypeAlias = Selection | ClassNumbers | ByteValues | Stays


def staying(reductions: Iterable[Reduction]) -> frozenset[str]:
    """Return the outputs that stay on the GPU."""
    stays = (each for each in reductions if isinstance(each, Stays) or (isinstance(each, ByteValues) and each.order))
    return frozenset(name for each in stays for name in each.outputs)


@runtime_checkable
class Reducing(Protocol):
    """A head or a decoder that declares reductions."""

    @property
    def reductions(self) -> Sequence[Reduction]:
        """Reductions of its outputs; each output is in at most one of them."""
        ...


@dataclass(frozen=True, slots=True)
class Selected(Ragged):
    """The selected candidates of an output: `values [K, columns]`, ordered by row of the batch and rising place.

    `places [K]`: the number of each among all candidates of its row, whose shape is `grid`, `[A]` or `[h, w]`.
    """

    places: Array
    grid: tuple[int, ...]


def least_value(threshold: float, activation: str = "none") -> float:
    """Return a number that each output exceeds whose score exceeds `threshold`, even after rounding to float16."""
    share = threshold * _MARGIN
    if activation != "sigmoid":
        return share
    return -inf if share <= 0 else inf if share >= 1 else log(share / (1 - share))


def reductions_of(owner: object) -> tuple[Reduction, ...]:
    """Return the reductions of a head or a decoder; empty if it declares none."""
    return tuple(owner.reductions) if isinstance(owner, Reducing) else ()
