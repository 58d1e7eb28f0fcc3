"""openvino: ONNX files on the CPU, where some networks take a third less time than by ONNX Runtime."""

from engines.content import Content
from engines.extras import Needs
from engines.inference.weights import one_file
from engines.ports import Device, LoadedEngine, Session
from schemas.model import ModelSpec
from schemas.settings import Settings


class OpenVino:
    """One core a session."""

    name = "openvino"
    needs = Needs(("openvino",), "openvino")

    def __init__(self, settings: Settings) -> None:
        pass

    def refuses(self, device: Device) -> str:
        """Why it does not run on a GPU."""
        return "openvino runs on the CPU alone" if device.gpu is not None else ""

    def open(self, model: Content, card: ModelSpec, device: Device, engine: LoadedEngine | None = None) -> Session:
        """A session of OpenVINO, which is imported now. Raises ModelError."""
        from engines.inference.openvino import OpenVinoSession

        return OpenVinoSession(one_file(model, card.name), card)
