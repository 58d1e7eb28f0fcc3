"""Lends a GPU's memory to other libraries by DLPack: the consumer holds the block, and may release it at any time."""

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engines.cuda.memory import Block

if TYPE_CHECKING:
    from engines.cuda.gpu import CudaGpu

_UNSIGNED, _BITS, _LANES = 1, 8, 1
_FREE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    """DLManagedTensor of dlpack.h before its version 1, of two dimensions, whose shape and strides follow it."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),  # kind and number
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
        ("context", ctypes.c_void_p),
        ("deleter", _FREE),
        ("sizes", ctypes.c_int64 * 2),
        ("steps", ctypes.c_int64 * 2),
    )


_lent: dict[int, tuple[_Managed, Block]] = {}
_new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)


_give_back = _FREE(lambda address: _lent.pop(address) and None)  # the consumer of a tensor calls it, on any thread


class Lent:
    """Bytes `[H, W]`, lines `pitch` apart, that begin `offset` bytes into a block."""

    def __init__(self, gpu: "CudaGpu", block: Block, shape: Sequence[int], pitch: int, offset: int = 0) -> None:
        self._device = gpu.dlpack_device
        self._block = block
        self._shape, self._pitch, self._offset = shape, pitch, offset

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device

    def __dlpack__(self, stream: Any = None) -> Any:
        """Return a capsule for a consumer that takes it at once; queued writes to the block must be done by then."""
        height, width = self._shape
        managed = _Managed(
            self._block.pointer + self._offset, self._device, 2, _UNSIGNED, _BITS, _LANES, deleter=_give_back
        )
        managed.sizes[:], managed.steps[:] = (height, width), (self._pitch, 1)
        address = ctypes.addressof(managed)
        managed.shape, managed.strides = address + _Managed.sizes.offset, address + _Managed.steps.offset
        _lent[address] = managed, self._block
        return _new_capsule(address, b"dltensor", None)
