"""Reads a graph's inputs: layout, bytes, gray, batch; states, and constants that need a value."""

import re
from collections.abc import Iterator, Sequence

from engines.models.companions.base import Line, Model, Picture, Port, Sure
from schemas.model import describe

_GRAPH = "the graph"
# name of a scalar input: its default in the projects that have it, and the reason
_CONSTANTS: dict[str, tuple[float, str]] = {
    "sr": (16000, "Silero VAD: 16 kHz"),
    "downsample_ratio": (0.25, "Robust Video Matting: 0.25 for HD"),
    "weight": (0.5, "CodeFormer and similar networks: half of each"),
    "fidelity": (0.5, "CodeFormer and similar networks: half of each"),
    "confidence_threshold": (0.25, "usual"),
    "score_threshold": (0.25, "usual"),
    "iou_threshold": (0.45, "usual"),
    "max_output_boxes_per_class": (100, "usual"),
}
# name of an input [N, 2]: the order of its values, which are the size of the picture or its scale. It gets the size of
# the model's own picture: then boxes are in pixels of that picture, and the head converts them to those of the source
_SIZES = {
    "orig_target_sizes": ("wh", "RT-DETR and D-FINE: width and height that boxes are scaled to"),
    "im_shape": ("hw", "PaddleDetection: height and width of the picture"),
    "scale_factor": ("11", "PaddleDetection: by how much the picture was scaled"),
}
_SILERO = (("input", "state", "sr"), ("input", "h", "c"))  # its own form, and the one that faster-whisper has
_PAIRS = (("", "N"), ("", "n"), ("i", "o"), ("_in", "_out"), ("in_", "out_"), ("", "_out"), ("past", "present"))


def look(model: Model) -> Sequence[Line]:
    """Lines of each input."""
    return [*_picture(model), *_others(model)]


def _picture(model: Model) -> Iterator[Line]:
    if (picture := model.picture) is None:
        return
    port = model.inputs[picture.number]
    shape = f"the graph's input `{port.name}` {describe(port.dtype, port.shape)}"
    # rows usually come before columns; in some models with colours last, such as MTCNN's, columns come first
    sure = Sure.certain if picture.layout == "nchw" else Sure.likely
    yield Line(f"{picture.path}.layout", picture.layout, sure, shape)
    if picture.height is not None and picture.width is not None:
        yield Line(f"{picture.path}.size", [picture.height, picture.width], Sure.certain, shape)
    if picture.channels == 1:
        yield Line(f"{picture.path}.colours", "gray", Sure.likely, f"{shape}: one channel")
    else:
        yield Line(f"{picture.path}.colours", "rgb", Sure.guess, "usual")
    if port.dtype == "uint8":
        yield Line(f"{picture.path}.scale", 1.0, Sure.certain, f"{_GRAPH} takes bytes")
    rows = [shape[:1] for shape in model.shapes.values()] if model.answers or not picture.batch else []
    if rows and (1,) not in rows:
        why = "one picture gives no output that begins with 1" if picture.batch else f"{shape} has no batch"
        yield Line("batch", "none", Sure.likely, why)


def _others(model: Model) -> Iterator[Line]:
    picture = model.picture
    for number, port in enumerate(model.inputs):
        if picture is not None and number == picture.number:
            continue
        fed = _feeding(port, model.outputs)
        if fed:
            why = f"the graph's output `{fed}` has its shape and its name"
            yield Line(f"inputs.{number}.state", {"output": fed}, Sure.likely, why)
        elif port.name in _SIZES and port.shape[-1:] == (2,):
            yield from _sized(number, port, picture)
        elif len(port.shape) <= 1 or all(size == 1 for size in port.shape):
            value, why = _CONSTANTS.get(port.name, (0.0, ""))
            if why:
                sure = Sure.guess if why == "usual" else Sure.likely
                yield Line(f"inputs.{number}.value", value, sure, f"the graph's input `{port.name}`: {why}")


def _sized(number: int, port: Port, picture: Picture | None) -> Iterator[Line]:
    order, why = _SIZES[port.name]
    if picture is None or picture.height is None or picture.width is None:
        return
    sides = {"h": picture.height, "w": picture.width, "1": 1}
    value = [sides[each] if port.dtype.startswith("int") else float(sides[each]) for each in order]
    yield Line(
        f"inputs.{number}.value", value, Sure.likely, f"the graph's input `{port.name}`: {why}; here of its picture"
    )


def silero(model: Model) -> Sequence[Line]:
    """Silero VAD, known by its inputs: 512 new samples of sound at 16 kHz after 64 earlier ones."""
    names = [port.name for port in model.inputs]
    known = next((each for each in _SILERO if set(each) <= set(names)), ())
    if not known or len(model.inputs[names.index("input")].shape) != 2:
        return []
    listed = ", ".join(f"`{name}`" for name in known)
    at, why = f"inputs.{names.index('input')}", f"the graph's inputs {listed}: Silero VAD at 16 kHz"
    sound = {"rate": 16000, "samples": 512, "context": 64}
    return [Line(f"{at}.{field}", value, Sure.likely, why) for field, value in sound.items()]


def _feeding(port: Port, outputs: Sequence[Port]) -> str:
    """The output that is a state's next value: of equal rank and dtype, and named after it."""
    names = [each.name for each in outputs if len(each.shape) == len(port.shape) > 0 and each.dtype == port.dtype]
    for old, new in _PAIRS:
        wanted = port.name + new if not old else re.sub(f"{re.escape(old)}", new, port.name, count=1)
        if wanted != port.name and wanted in names:
            return wanted
        if old and port.name.endswith(old) and port.name[: -len(old)] + new in names:
            return port.name[: -len(old)] + new
    return ""
