"""Runs ONNX Runtime on the CPU, one thread a session: work is parallel by segment, and more threads only cost CPU."""

import ctypes
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from engines.content import Content, ModelFiles, graph_of
from engines.inference.reasons import one_line
from engines.inference.session import check_inputs, check_model_card, zeros_of
from engines.inference.weights import check_weights
from engines.part import Array
from schemas.errors import ModelError
from schemas.model import ModelSpec, TensorSpec
from schemas.model_profile import NOT_TUNED, ComputeOptions

LOADABLE = "correct its export; see docs/models.md"
_DTYPES = {"float": "float32", "double": "float64"}  # all others have the same name in NumPy
_LARGE_BYTES = 8 << 20
_LEVELS = {
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
}
_NO_FOLDER = "/nonexistent"  # of weights outside of a model of one file, in case `check_weights` misses any
GIVE_BACK_S = 5.0  # after each run it would cost three times the CPU, because returned pages are zeroed again


class _Arena:
    """The memory in which all sessions of this process compute: one arena, so that the sessions' memory does not add
    up.

    It grows to the size of the largest batch; every `GIVE_BACK_S` a run returns the memory that it did not need.
    """

    def __init__(self) -> None:
        self._making = threading.Lock()
        self._made = False
        self._due_s = 0.0
        self._giving_back: Any = None
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc keeps freed memory for later use

    def join(self, options: Any) -> None:
        """Make a session that is created with these options compute in this arena."""
        with self._making:
            if not self._made:
                here = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
                ort.create_and_register_allocator(here, None)
                self._giving_back = ort.RunOptions()
                self._giving_back.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
                self._made = True
        options.add_session_config_entry("session.use_env_allocators", "1")

    def run(self, session: Any, outputs: list[str], feed: Mapping[str, Array]) -> list[Array]:
        """Return the session's outputs; at intervals, return unused memory to the system afterwards."""
        return list(self._called(session.run, outputs, feed))

    def run_bound(self, session: Any, binding: Any, options: Any) -> None:
        """Run a session with inputs and outputs that are bound, as `run` does, with options of the run.

        A run that returns memory has others: `terminate` does not end it.
        """
        self._called(session.run_with_iobinding, binding, options=options)

    def _called(self, method: Any, *arguments: Any, options: Any = None) -> Any:
        now_s = time.monotonic()
        if now_s < self._due_s:
            return method(*arguments, options)
        self._due_s = now_s + GIVE_BACK_S
        made = method(*arguments, self._giving_back)
        if self._trim is not None:
            self._trim(0)
        return made


ARENA = _Arena()


class OnnxRuntimeSession:
    """A model on the CPU. Raises ModelError if `model` is not an ONNX file or does not agree with `spec`."""

    # Small rows share a call. Pictures do not: a tagger takes 4 % less time by one than by three, as what it computes
    # stays in the processor's caches; and lanczos2x needs some 55 times its input, 900 MB for eight frames of 1080p.
    batch_bytes = 256 << 10

    def __init__(
        self,
        model: Content,
        spec: ModelSpec,
        simulate: bool = False,
        loaded: Any = None,
        options: ComputeOptions = NOT_TUNED,
    ) -> None:
        """Load a model, with `simulate` for the test of an engine's graph.

        Then int8 graphs compute in float, because the CPU's own int8 products saturate at 16 bits on some machines, and
        nothing is fused.

        `loaded` is the result of `load` for `model`, if it was called already.
        """
        self.spec = spec
        self._session: Any = loaded or load(model, spec.name, simulate, level=options.level)
        self._outputs = [tensor.name for tensor in spec.outputs]
        if any(tensor.picture and tensor.picture.tile for tensor in spec.inputs):
            self.batch_bytes = 0  # a tile at a time takes a tenth less time than eight: what it computes stays cached
        if options.batch and (row := zeros_of(spec, 1)) is not None:
            self.batch_bytes = options.batch * sum(array.nbytes for array in row.values())
        check_model_card(spec, *tensors_of(self._session))

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs of one batch by name. Raises ModelError: inputs do not fit the model card, or the model
        fails.
        """
        check_inputs(self.spec, inputs)
        feed = {tensor.name: np.ascontiguousarray(inputs[tensor.name]) for tensor in self.spec.inputs}
        try:
            outputs = ARENA.run(self._session, self._outputs, feed)
        except Exception as error:  # the runtime's own classes share no base below Exception
            raise ModelError(f"model `{self.spec.name}` failed: {one_line(error)}") from error
        return dict(zip(self._outputs, outputs, strict=True))

    def warm_up(self) -> None:
        """Run one row of zeros; a model with free inner dimensions is skipped, because the sizes it accepts are
        unknown.
        """
        zeros = zeros_of(self.spec, 1)
        if zeros is not None:
            self.run(zeros)

    def close(self) -> None:
        """Free the model and its memory."""
        self._session = None


def load(model: Content, name: str, simulate: bool = False, once: bool = False, level: str = "") -> Any:
    """Load a session of ONNX Runtime. Raises ModelError; a few graphs end the process, see `engines.own_process`.

    `once`: for a few runs only. Weights are used where they are, and not rearranged in memory first: of a large model
    that takes longer than the runs. `level`: how far the graph is rewritten, see `ComputeOptions`.
    """
    check_weights(model, name)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = False  # a third less memory for planes, and no slower
    options.log_severity_level = 4  # errors come as exceptions
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    ARENA.join(options)
    if once:
        options.add_session_config_entry("session.disable_prepacking", "1")
    if level:
        options.graph_optimization_level = _LEVELS[level]
    if simulate:
        # further fusions end the process on some fp16 graphs, and a test needs no speed
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        return new_session(model, options, ["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own classes share no base below Exception
        raise ModelError(f"model `{name}` cannot be loaded: {one_line(error)}", LOADABLE) from error


def new_session(model: Content, options: Any, providers: Sequence[Any]) -> Any:
    """Create a session; it reads no file that is not the model's, and blocks no other thread. Raises ONNX Runtime's
    errors.

    ONNX Runtime holds Python's lock while it reads a graph from bytes (a second for a gigabyte), but not while it reads
    a file. Therefore a large one is passed as a file in memory. Weights of a model of several files are mapped into
    memory from its folder; its graph is small without them.
    """
    graph = graph_of(model)
    folder = str(model.folder.resolve()) if isinstance(model, ModelFiles) else _NO_FOLDER
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    if isinstance(model, ModelFiles) or len(graph) < _LARGE_BYTES or not hasattr(os, "memfd_create"):
        return ort.InferenceSession(graph, options, providers)
    descriptor = os.memfd_create("model", os.MFD_CLOEXEC)
    try:
        rest = memoryview(graph)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        return ort.InferenceSession(f"/proc/self/fd/{descriptor}", options, providers)
    finally:
        os.close(descriptor)


def tensors_of(session: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return `(inputs, outputs)` of a session of ONNX Runtime."""
    inputs, outputs = (
        tuple(_tensor(node, number) for number, node in enumerate(nodes))
        for nodes in (session.get_inputs(), session.get_outputs())
    )
    return inputs, outputs


def _tensor(node: Any, number: int) -> TensorSpec:
    element = re.sub(r"^tensor\((.*)\)$", r"\1", node.type)
    # ONNX gives a free dimension a name, an empty name or none at all
    shape = tuple(size if size else f"free{number}_{axis}" for axis, size in enumerate(node.shape))
    return TensorSpec(name=node.name, dtype=_DTYPES.get(element, element), shape=shape)
