"""ncnn: ONNX files of networks of pictures on the CPU, half the time of ONNX Runtime for some of them."""

from engines.content import Content
from engines.extras import Needs
from engines.inference.weights import one_file
from engines.ports import Device, LoadedEngine, Session
from schemas.model import ModelSpec
from schemas.settings import Settings


class Ncnn:
    """One core a session."""

    name = "ncnn"
    needs = Needs(("ncnn",), "ncnn")

    def __init__(self, settings: Settings) -> None:
        pass

    def refuses(self, device: Device) -> str:
        """Why it does not run on a GPU."""
        return "ncnn runs on the CPU alone" if device.gpu is not None else ""

    def open(self, model: Content, card: ModelSpec, device: Device, engine: LoadedEngine | None = None) -> Session:
        """A session of ncnn, which is imported now. Raises ModelError."""
        from engines.inference.ncnn import NcnnSession

        return NcnnSession(one_file(model, card.name), card)
