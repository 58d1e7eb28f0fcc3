"""The launches that compute an X3D network, one after the other, for batches of one shape. Touches no device.

A value is float16 `[N, T, H, W, C]`; C is padded by zeros to a multiple of 8, its *pitch*.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

from engines.inference.x3d_graph import Block, Convolution, Gate, X3dNet
from engines.part import Array

INPUT, OUTPUT = "input", "output"  # names of memory
_PLACES, _TILE_ROWS, _TILE_DEPTH, _TILES_BYTES = 4, 128, 64, 3 * 128 * 128  # see x3d.cu and pointwise.cu
_COLUMNS, _READ = (96, 64, 32), 16  # of a block; reading a tile costs as much as so many columns
_THREADS, _POINTWISE_THREADS, _GATE_THREADS, _MOST_BLOCKS = 128, 256, 512, 4
_SPACE = {1: "space_1", 2: "space_2"}

Shape = tuple[int, int, int, int]  # windows, frames, height, width


class Room(NamedTuple):
    """What a GPU has: multiprocessors, and bytes of shared memory for a block."""

    multiprocessors: int
    shared: int


@dataclass(frozen=True, slots=True)
class Step:
    """A launch. Fields of its struct: addresses of `memory` by name, addresses of `constants`, and `numbers`."""

    kernel: str
    memory: Mapping[str, str]
    constants: Mapping[str, Array]
    numbers: Mapping[str, float]
    grid: tuple[int, int]
    threads: int
    shared: int = 0


class Steps:
    """All launches for bytes `[*shape, 3]`; `nbytes`: of each memory; `shape` and `channels` of the last value."""

    def __init__(self, net: X3dNet, shape: Shape, room: Room) -> None:
        self._room = room
        self.steps: list[Step] = []
        self.nbytes: dict[str, int] = {}
        self.shape, self.channels = shape, 3
        self._first(net)
        value, free = "b", "a"
        self._depthwise("time_5", net.temporal, "a", "b")
        for number, block in enumerate(net.blocks):
            over = net.last is None and number == len(net.blocks) - 1
            self._block(block, value, OUTPUT if over else free)
            value, free = free, value
        if net.last is not None:
            self._pointwise(net.last, value, OUTPUT)

    def _first(self, net: X3dNet) -> None:
        windows, frames, height, width = self.shape
        convolution = net.first
        self._shrink(convolution)
        pitch = pitch_of(convolution.channels)
        weights = np.zeros((27, pitch), np.float32)
        weights[:, : convolution.channels] = convolution.weights[:, :, 0].transpose(2, 3, 1, 0).reshape(27, -1)
        numbers: dict[str, float] = {"scale": net.scale, "shift": net.shift}
        numbers |= {"pictures": windows * frames, "in_height": height, "in_width": width, "pitch": pitch}
        numbers |= {"height": self.shape[2], "width": self.shape[3], "stride": convolution.stride}
        strips = prod(self.shape[:3]) * -(-self.shape[3] // _PLACES)
        grid = -(-strips * pitch // 8 // _THREADS), 1
        self._add("first", {"in": INPUT, "out": "a"}, {"weights": weights}, numbers, grid, _THREADS)

    def _block(self, block: Block, value: str, out: str) -> None:
        shape, channels = self.shape, self.channels
        around = value
        if block.shortcut is not None:
            around = "around"
            self._pointwise(block.shortcut, value, around)
            self.shape, self.channels = shape, channels
        self._pointwise(block.expand, value, "inner")
        kernel = _SPACE[block.depthwise.stride]
        self._depthwise(kernel, block.depthwise, "inner", "made", block.gate, swish=block.gate is None)
        self._pointwise(block.project, "made", out, around, gated=block.gate is not None, relu=True)

    def _depthwise(
        self, kernel: str, layer: Convolution, value: str, out: str, gate: Gate | None = None, swish: bool = False
    ) -> None:
        windows, frames, height, width = self.shape
        self._shrink(layer)
        pitch, strips = pitch_of(layer.channels), -(-self.shape[3] // _PLACES)
        weights = _padded(layer.weights.reshape(layer.channels, -1).T, pitch)
        numbers = {"windows": windows, "frames": frames, "in_height": height, "in_width": width, "pitch": pitch}
        numbers |= {"height": self.shape[2], "width": self.shape[3], "relu": int(layer.relu), "swish": int(swish)}
        constants = {"weights": weights, "bias": _padded(layer.bias[None], pitch)}
        grid = -(-windows * self.shape[2] * strips * pitch // 2 // _THREADS), 1
        memory = {"in": value, "out": out, **({"sums": "sums"} if gate else {})}
        self._add(kernel, memory, constants, numbers, grid, _THREADS)
        if gate is not None:
            self._keep("sums", 4 * windows * self.shape[2] * strips * pitch)
            self._gate(gate, self.shape[2] * strips, pitch)

    def _gate(self, gate: Gate, strips: int, pitch: int) -> None:
        narrow, wide = (layer.weights[:, :, 0, 0, 0] for layer in (gate.narrow, gate.wide))
        constants = {"narrow": _padded(narrow, pitch), "narrow_bias": gate.narrow.bias}
        constants |= {"wide": _padded(wide.T, pitch), "wide_bias": _padded(gate.wide.bias[None], pitch)}
        numbers = {"strips": strips, "values": prod(self.shape[1:]), "pitch": pitch, "channels": len(narrow)}
        self._keep("gates", 4 * self.shape[0] * pitch)
        self._add("gate", {"sums": "sums", "out": "gates"}, constants, numbers, (self.shape[0], 1), _GATE_THREADS)

    def _pointwise(
        self, layer: Convolution, value: str, out: str, around: str = "", gated: bool = False, relu: bool = False
    ) -> None:
        """`gated`: its input times the gates, x * sigmoid(x) of that; `around` is added, then ReLU if `relu`."""
        _, _, height, width = self.shape
        in_pitch = pitch_of(self.channels)
        self._shrink(layer)
        rows, pitch = prod(self.shape), pitch_of(layer.channels)
        depth = _up(in_pitch, _TILE_DEPTH)
        together = self._columns_of(pitch, depth)
        columns = _up(pitch, together)
        weights = np.zeros((columns, depth), np.float16)
        weights[: layer.channels, : layer.weights.shape[1]] = layer.weights[:, :, 0, 0, 0]
        constants = {"weights": weights, "bias": _padded(layer.bias[None], columns)}
        numbers = {"rows": rows, "in_pitch": in_pitch, "pitch": pitch, "depth": depth}
        numbers |= {"window_rows": prod(self.shape[1:]), "swish": int(gated), "relu": int(relu or layer.relu)}
        numbers |= {"stride": layer.stride, "height": self.shape[2], "width": self.shape[3]}
        numbers |= {"in_height": height, "in_width": width}
        memory = {"in": value, "out": out}
        memory |= {name: each for name, each in (("gates", "gates" if gated else ""), ("added", around)) if each}
        shared, across = _TILES_BYTES + together * depth * 2, columns // together
        blocks = self._room.multiprocessors * min(_MOST_BLOCKS, max(1, self._room.shared // shared))
        grid = across, min(-(-rows // _TILE_ROWS), max(1, blocks // across))
        self._add(f"pointwise_{together}", memory, constants, numbers, grid, _POINTWISE_THREADS, shared)

    def _columns_of(self, pitch: int, depth: int) -> int:
        """How many columns a block makes, whose weights fit beside its tiles of rows."""
        fit = [each for each in _COLUMNS if _TILES_BYTES + each * depth * 2 <= self._room.shared]
        return min(fit or _COLUMNS[-1:], key=lambda each: -(-pitch // each) * (each + _READ))

    def _shrink(self, layer: Convolution) -> None:
        """The shape behind a convolution."""
        windows, frames, height, width = self.shape
        self.shape = windows, frames, -(-height // layer.stride), -(-width // layer.stride)
        self.channels = layer.channels

    def _add(
        self, kernel: str, memory: Mapping[str, str], constants: Mapping[str, Array], numbers: Mapping[str, float],
        grid: tuple[int, int], threads: int, shared: int = 0,
    ) -> None:  # fmt: skip
        if kernel != "gate":
            self._keep(memory["out"], 2 * prod(self.shape) * pitch_of(self.channels))
        self.steps.append(Step(kernel, dict(memory), dict(constants), dict(numbers), grid, threads, shared))

    def _keep(self, name: str, nbytes: int) -> None:
        self.nbytes[name] = max(self.nbytes.get(name, 0), nbytes)


def pitch_of(channels: int) -> int:
    """Values from one place to the next."""
    return _up(channels, 8)


def _up(size: int, step: int) -> int:
    return -(-size // step) * step


def _padded(values: Array, columns: int) -> Array:
    """`[rows, columns]` float32, zeros behind each row."""
    made = np.zeros((len(values), columns), np.float32)
    made[:, : values.shape[1]] = values
    return made
