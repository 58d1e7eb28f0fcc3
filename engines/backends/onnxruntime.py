"""onnxruntime: ONNX files as they are, on the CPU and by CUDA on a GPU."""

from collections.abc import Mapping, Sequence
from typing import Any

from engines.building.convert import converted
from engines.content import Content
from engines.inference.heads import Heads
from engines.inference.own_kernels import has_own_kernels, own_session
from engines.inference.recorded import can_be_recorded
from engines.inference.states import without_state
from engines.inference.weights import one_file
from engines.own_process import in_own_process
from engines.ports import Device, LoadedEngine, Session
from engines.probe_rows import probe_rows
from schemas.model import ModelSpec
from schemas.model_profile import ComputeOptions
from schemas.settings import Settings

_Changes = Sequence[Sequence[Mapping[str, Any]]]
_ON_CPU: _Changes = ([{"level": "extended"}], [{"batch": rows} for rows in (1, 2, 4, 8, 16, 32)])
_PRECISIONS: _Changes = ([{"precision": "tf32"}, {"precision": "fp16"}],)
_LIBRARY: _Changes = (
    [{"layout": "nchw"}, {"layout": "nhwc"}],
    [{"search": "heuristic"}, {"search": "exhaustive"}],
)
_KERNELS: _Changes = ([{"kernels": True, "precision": "fp16"}],)
_GRAPH: _Changes = ([{"graph": True}],)
_BATCHES: _Changes = ([{"batch": rows} for rows in (32, 64, 128)],)


class OnnxRuntime:
    """One core a session on the CPU; on a GPU, rows are gathered there."""

    name = "onnxruntime"

    def __init__(self, settings: Settings) -> None:
        self._tf32 = settings.tf32
        self._cache = settings.cache_folder

    def refuses(self, device: Device) -> str:
        """Nothing: it runs everywhere."""
        return ""

    def library(self) -> str:
        """Version of ONNX Runtime."""
        import onnxruntime

        return str(onnxruntime.__version__)

    def usual(self, device: Device) -> ComputeOptions:
        """TF32 where the settings allow it."""
        return ComputeOptions(precision="tf32" if self._tf32 and device.gpu is not None else "")

    def worth_trying(self, model: Content, card: ModelSpec, device: Device) -> _Changes:
        """See `engines.tunable.Tunable.worth_trying`."""
        if device.gpu is None:
            return _ON_CPU
        own = _KERNELS if has_own_kernels(model, card.name, device.gpu.facts.capability) else ()
        graph = _GRAPH if can_be_recorded(card) else ()
        return (*own, *_PRECISIONS, *_LIBRARY, *graph, *_BATCHES)

    def open(self, model: Content, card: ModelSpec, device: Device, engine: LoadedEngine | None = None) -> Session:
        """A session of ONNX Runtime, which is imported now. Raises ModelError."""
        return self.open_with(model, card, device, self.usual(device))

    def open_with(self, model: Content, card: ModelSpec, device: Device, options: ComputeOptions) -> Session:
        """A session of ONNX Runtime with these options; float16 is that of the graph, which is converted first.

        Raises ModelError, DeviceLost.
        """
        if options.kernels:
            own = own_session(model, card, device.gpu, self._cache, options, device.encoder.on_gpu)
            own.reduce(Heads(without_state(card)).reductions)
            return own
        if options.precision == "fp16":
            hint = "leave its precision as it is"
            given = (card.name, one_file(model, card.name), "fp16", ())
            model = in_own_process(card.name, "converts", hint, converted, *given)
        if device.gpu is None:
            from engines.inference.onnxruntime import OnnxRuntimeSession

            return OnnxRuntimeSession(model, card, options=options)
        from engines.inference.cuda import CudaSession

        session = CudaSession(model, card, device.gpu, options, pictures_stay=device.encoder.on_gpu)
        session.reduce(Heads(without_state(card)).reductions)
        if options.graph:
            session.record(probe_rows(card, (), session.batch_rows))
        return session
