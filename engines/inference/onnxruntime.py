"""ONNX Runtime on the CPU, one thread a session: parallelism is by segment, and more threads cost CPU for nothing."""

import ctypes
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from engines.inference.reasons import one_line
from engines.inference.session import check_inputs, check_model_card
from engines.inference.weights import check_weights_inside
from engines.part import Array
from schemas.errors import ModelError
from schemas.pipeline import ModelSpec, TensorSpec

LOADABLE = "correct its export; see docs/models.md"
_DTYPES = {"float": "float32", "double": "float64"}  # the rest are called what NumPy calls them
_LARGE_BYTES = 8 << 20
_NO_FOLDER = "/nonexistent"  # of weights outside of the file, should `check_weights_inside` ever miss any
GIVE_BACK_S = 5.0  # after each run it would cost thrice the CPU, for pages that come back are zeroed again


class _Arena:
    """The memory that the sessions of this process compute in: one arena for all, so that theirs does not add up.

    It grows to what the largest batch took; every `GIVE_BACK_S` a run gives back what that run did not need.
    """

    def __init__(self) -> None:
        self._making = threading.Lock()
        self._made = False
        self._due_s = 0.0
        self._giving_back: Any = None
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc keeps what is freed, for another time

    def join(self, options: Any) -> None:
        """Have a session made with these options compute there."""
        with self._making:
            if not self._made:
                here = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
                ort.create_and_register_allocator(here, None)
                self._giving_back = ort.RunOptions()
                self._giving_back.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
                self._made = True
        options.add_session_config_entry("session.use_env_allocators", "1")

    def run(self, session: Any, outputs: list[str], feed: Mapping[str, Array]) -> list[Array]:
        """The session's outputs; now and then what it does not need is given back afterwards."""
        now_s = time.monotonic()
        if now_s < self._due_s:
            return list(session.run(outputs, feed))
        self._due_s = now_s + GIVE_BACK_S
        made = list(session.run(outputs, feed, self._giving_back))
        if self._trim is not None:
            self._trim(0)
        return made


_ARENA = _Arena()


class OnnxRuntimeSession:
    """A model on the CPU. Raises ModelError when `model` is not an ONNX file or is not what `spec` says."""

    # lanczos2x needs some 55 times its input: a batch of eight frames of 1080p takes 900 MB, and is no faster than one
    batch_bytes = 2 << 20

    def __init__(self, model: bytes, spec: ModelSpec, simulate: bool = False, loaded: Any = None) -> None:
        """`simulate`: as a test of an engine's graph needs it. int8 graphs compute in float, for the CPU's own int8
        products saturate at 16 bits on some; nothing is fused.

        `loaded` is what `load` gave for `model`, where it was called already.
        """
        self.spec = spec
        self._session: Any = loaded or load(model, spec.name, simulate)
        self._outputs = [tensor.name for tensor in spec.outputs]
        check_model_card(spec, *tensors_of(self._session))

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs of one batch by name. Raises ModelError: inputs do not fit the model card, or the model fails."""
        check_inputs(self.spec, inputs)
        feed = {tensor.name: np.ascontiguousarray(inputs[tensor.name]) for tensor in self.spec.inputs}
        try:
            outputs = _ARENA.run(self._session, self._outputs, feed)
        except Exception as error:  # the runtime's own classes share no base below Exception
            raise ModelError(f"model `{self.spec.name}` failed: {one_line(error)}") from error
        return dict(zip(self._outputs, outputs, strict=True))

    def warm_up(self) -> None:
        """Run one row of zeros; a model with free inner dimensions is left alone, for nobody knows what it can take."""
        zeros = self.zeros(1)
        if zeros is not None:
            self.run(zeros)

    def zeros(self, rows: int) -> dict[str, Array] | None:
        """Inputs of so many rows; None where the card has a free inner dimension, or a batch of another size.

        A state is that before the first run: its free dimensions are 1, and so is the batch.
        """
        zeros = {}
        if rows != 1 and self.spec.state_outputs:
            return None
        for tensor in self.spec.inputs:
            if tensor.state:
                shape = [size if isinstance(size, int) else 1 for size in tensor.shape]
                zeros[tensor.name] = np.full(shape, tensor.state.start, tensor.dtype)
                continue
            batch, inner = tensor.shape[0], [size for size in tensor.shape[1:] if isinstance(size, int)]
            if len(inner) + 1 != len(tensor.shape) or (isinstance(batch, int) and batch != rows):
                return None
            zeros[tensor.name] = np.zeros((rows, *inner), tensor.dtype)
        return zeros

    def close(self) -> None:
        """Free the model and its memory."""
        self._session = None


def load(model: bytes, name: str, simulate: bool = False) -> Any:
    """A session of ONNX Runtime. Raises ModelError; a few graphs end the process, see `engines.own_process`."""
    check_weights_inside(model, name)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = False  # a third less memory for planes, and no slower
    options.log_severity_level = 4  # what matters comes as an exception
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    _ARENA.join(options)
    if simulate:
        # the fusions beyond it end the process on some fp16 graphs, and a test needs no speed
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        return new_session(model, options, ["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own classes share no base below Exception
        raise ModelError(f"model `{name}` cannot be loaded: {one_line(error)}", LOADABLE) from error


def new_session(model: bytes, options: Any, providers: Sequence[Any]) -> Any:
    """A session of a model, for which no other file is read and no other thread waits. Raises what ONNX Runtime does.

    ONNX Runtime holds Python's lock while it reads a model from bytes, a second for a gigabyte, and releases it for
    a file: a large model is given as a file in memory.
    """
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NO_FOLDER)
    if len(model) < _LARGE_BYTES or not hasattr(os, "memfd_create"):
        return ort.InferenceSession(model, options, providers)
    descriptor = os.memfd_create("model", os.MFD_CLOEXEC)
    try:
        rest = memoryview(model)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        return ort.InferenceSession(f"/proc/self/fd/{descriptor}", options, providers)
    finally:
        os.close(descriptor)


def tensors_of(session: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """`(inputs, outputs)` of a session of ONNX Runtime."""
    inputs, outputs = (
        tuple(_tensor(node, number) for number, node in enumerate(nodes))
        for nodes in (session.get_inputs(), session.get_outputs())
    )
    return inputs, outputs


def _tensor(node: Any, number: int) -> TensorSpec:
    element = re.sub(r"^tensor\((.*)\)$", r"\1", node.type)
    # ONNX leaves a free dimension with a name, an empty name or none at all
    shape = tuple(size if size else f"free{number}_{axis}" for axis, size in enumerate(node.shape))
    return TensorSpec(name=node.name, dtype=_DTYPES.get(element, element), shape=shape)
