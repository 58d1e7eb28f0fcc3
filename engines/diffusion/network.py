"""One network of a Stable Diffusion: a session of ONNX Runtime, which takes arrays in the types that its graph says."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.content import ModelFiles
from engines.diffusion.folder import GRAPH, file_of, stored_name
from engines.inference.reasons import one_line
from engines.part import Array, Tick
from engines.ticking import ticking
from schemas.errors import ModelError
from schemas.model import TensorSpec

if TYPE_CHECKING:
    from engines.cuda.gpu import CudaGpu

_RUN_S = 1800.0  # a run that takes longer is stuck


class Network:
    """The graph in a folder of a model, on the CPU, or on `gpu`. Raises ModelError, DeviceLost."""

    def __init__(self, model: ModelFiles, folder: str, name: str, gpu: "CudaGpu | None", tf32: bool) -> None:
        from engines.inference.onnxruntime import load, tensors_of

        self.name = f"{name}: {folder}"
        graph = file_of(model, stored_name(f"{folder}/{GRAPH}"))
        if graph is None:
            raise ModelError(f"model {name} has no {folder}/{GRAPH}", "add the folder again")
        content = ModelFiles(graph, model.files, Path(model.folder))
        self._gpu = gpu
        self._session: Any = None
        if gpu is None:
            self._session = load(content, self.name)
        else:
            from engines.inference.cuda import load_on_gpu

            gpu.enter()
            self._session = load_on_gpu(content, self.name, gpu, tf32)
        inputs, outputs = tensors_of(self._session)
        self.inputs: Mapping[str, TensorSpec] = {each.name: each for each in inputs}
        self.outputs: Mapping[str, TensorSpec] = {each.name: each for each in outputs}

    def run(self, feed: Mapping[str, Array], outputs: list[str], tick: Tick) -> list[Array]:
        """Return these outputs, float32. Raises ModelError if the network fails, or takes other inputs; DeviceLost."""
        if set(feed) != set(self.inputs):
            given, wanted = (", ".join(sorted(each)) for each in (feed, self.inputs))
            raise ModelError(f"model {self.name} takes {wanted}, and not {given}", "it is no Stable Diffusion's")
        typed = {key: np.ascontiguousarray(array, self.inputs[key].dtype) for key, array in feed.items()}
        with ticking(tick, _RUN_S):  # a step of a large picture takes minutes on a processor
            return [np.asarray(each, np.float32) for each in self._run(outputs, typed)]

    def rows(self, name: str) -> int | None:
        """Return how many rows an input takes at a time; None: any number."""
        size = self.inputs[name].shape[0] if name in self.inputs and self.inputs[name].shape else None
        return size if isinstance(size, int) else None

    def close(self) -> None:
        """Free the memory."""
        self._session = None

    def _run(self, outputs: list[str], feed: dict[str, Array]) -> list[Array]:
        if self._gpu is None:
            from engines.inference.onnxruntime import run_here

            return run_here(self._session, outputs, feed, self.name)
        self._gpu.enter()
        try:
            return list(self._session.run(outputs, feed))
        except Exception as error:  # the runtime's own classes share no base below Exception
            if not self._gpu.works():
                raise self._gpu.lost(error) from error
            raise ModelError(f"model `{self.name}` failed: {one_line(error)}") from error
