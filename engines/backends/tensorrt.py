"""tensorrt and tensorrt_rtx: engines, compiled for kinds of GPUs and tested before they serve."""

from collections.abc import Sequence

from engines.building.agreement import agree, demand
from engines.building.builder import version
from engines.building.engine import PROBE_ROWS
from engines.building.gpus import check_precision, plans_for
from engines.content import Content
from engines.inference.bindings import installed
from engines.inference.heads import Heads
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.inference.states import without_state
from engines.ports import Device, LoadedEngine, Session
from schemas.engine import Agreement, EngineSpec, Precision
from schemas.errors import ModelError, UsageError
from schemas.model import ModelSpec
from schemas.settings import Settings


class TensorRt:
    """TensorRT 8.6, 10 or 11: it compiles on the GPU that an engine is for, and times what is fastest there."""

    name = "tensorrt"
    needs_gpu = True

    def __init__(self, settings: Settings) -> None:
        pass

    def refuses(self, device: Device) -> str:
        """It needs a GPU."""
        return f"{self.name} needs a GPU" if device.gpu is None else ""

    def open(self, model: Content, card: ModelSpec, device: Device, engine: LoadedEngine | None = None) -> Session:
        """An engine on a GPU, after it answered as its reference in ONNX Runtime on the CPU does.

        Raises ModelError when it does not: nothing serves it then.
        """
        if engine is None:
            raise ModelError(f"model {card.name}: {self.name} runs engines", "see `rigflow engine build --help`")
        from engines.inference.plan import PlanSession

        session = PlanSession(engine.plan, card, engine.spec, device.gpu)
        try:
            demand(agreement_on(session, engine.reference, engine.spec, self.name), card.name)
        except BaseException:
            session.close()
            raise
        session.reduce(Heads(without_state(card)).reductions)
        return session

    def installed(self) -> bool:
        """Whether its Python bindings can be imported."""
        return installed(self.name)

    def version(self) -> str:
        """Version of its library. Raises UsageError when it is not installed."""
        return version(self.name)

    def plans_for(self, targets: Sequence[str]) -> list[tuple[str, ...]]:
        """The kinds of GPUs that share an engine."""
        return [tuple(targets)]

    def check_precision(self, target: str, precision: Precision, anyway: bool = False) -> str:
        """See `engines.building.gpus.check_precision`."""
        return check_precision(target, precision, anyway)


class TensorRtRtx(TensorRt):
    """TensorRT-RTX: it compiles on any machine, for Turing and newer."""

    name = "tensorrt_rtx"
    needs_gpu = False

    def plans_for(self, targets: Sequence[str]) -> list[tuple[str, ...]]:
        """Turing has an engine of its own. Raises UsageError for a GPU that TensorRT-RTX cannot run on."""
        return plans_for(targets)

    def check_precision(self, target: str, precision: Precision, anyway: bool = False) -> str:
        """It builds fp16 alone for Turing."""
        if target == "sm75" and precision == "fp32":
            raise UsageError("TensorRT-RTX builds fp16 engines only for sm75", "say --precision fp16 for that GPU")
        return super().check_precision(target, precision, anyway)


def agreement_on(session: Session, model: bytes, engine: EngineSpec, where: str) -> Agreement:
    """How far a session is from `model` in ONNX Runtime on the CPU, on pictures of the engine's shapes and ranges."""
    reference = OnnxRuntimeSession(model, session.spec, simulate=True)
    try:
        basis, rows = engine.basis, min(PROBE_ROWS, engine.rows)
        ranges = [engine.agreement.ranges]
        return agree(session, reference, basis.profiles, rows, basis.precision, where, ranges)
    finally:
        reference.close()
