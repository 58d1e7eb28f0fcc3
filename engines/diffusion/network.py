"""One network of a Stable Diffusion: a graph of ONNX Runtime, which takes arrays in the types that it says."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.content import ModelFiles
from engines.diffusion.folder import GRAPH, file_of, stored_name
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
        from engines.inference.onnxruntime import tensors_of
        from engines.inference.resident import place_of

        self.name = f"{name}: {folder}"
        graph = file_of(model, stored_name(f"{folder}/{GRAPH}"))
        if graph is None:
            raise ModelError(f"model {name} has no {folder}/{GRAPH}", "add the folder again")
        self._place = place_of(self.name, gpu, tf32)
        self._session: Any = self._place.load(ModelFiles(graph, model.files, model.folder))
        inputs, outputs = tensors_of(self._session)
        self.inputs: Mapping[str, TensorSpec] = {each.name: each for each in inputs}
        self.outputs: Mapping[str, TensorSpec] = {each.name: each for each in outputs}

    def run(self, feed: Mapping[str, Array], outputs: list[str], tick: Tick) -> list[Array]:
        """Return these outputs, float32. Raises ModelError if the network fails, or takes other inputs; DeviceLost."""
        from engines.inference.resident import value

        if set(feed) != set(self.inputs):
            given, wanted = (", ".join(sorted(each)) for each in (feed, self.inputs))
            raise ModelError(f"model {self.name} takes {wanted}, and not {given}", "it is no Stable Diffusion's")
        typed = {name: value(self.typed(name, array)) for name, array in feed.items()}
        with ticking(tick, _RUN_S):  # a step of a large picture takes minutes on a processor
            return [np.array(each, np.float32) for each in self._place.fetch(self._session, typed, outputs)]

    def typed(self, name: str, array: Array) -> Array:
        """Return an array in the type of an input; as it is where there is no such input, which `run` says."""
        return np.asarray(array, self.inputs[name].dtype) if name in self.inputs else array

    def rows(self, name: str) -> int | None:
        """Return how many rows an input takes at a time; None: any number."""
        size = self.inputs[name].shape[0] if name in self.inputs and self.inputs[name].shape else None
        return size if isinstance(size, int) else None

    def close(self) -> None:
        """Free the memory."""
        if self._session is not None:
            self._place.close(self._session)
            self._session = None
