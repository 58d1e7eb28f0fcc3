"""Reads the vocoder beside an acoustic model as sherpa-onnx publishes them, and joins graphs of both.

A vocoder of HiFi-GAN makes sound of bands of sound (mel); one of Vocos makes a spectrum, of which the graph gets an
inverse Fourier transform.

Source: torch.istft for the transform with its window.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import compose, helper, numpy_helper, version_converter

from engines.inference.weights import parsed_graph
from engines.models.publishers import VOCODER_PAGE
from engines.models.voices import VOCODERS
from engines.part import Array
from schemas.errors import ModelError

_OPSET = 13  # Slice and Squeeze with their axes as inputs
_PREFIX = "vocoder_"


class Spectrum(NamedTuple):
    """How a vocoder's spectrum becomes sound: magnitude, cosine and sine `[1, size / 2 + 1, T]`, by their names."""

    names: tuple[str, str, str]
    size: int
    hop: int
    centred: bool


class Vocoder(NamedTuple):
    """A vocoder: its ONNX model, the file, the names of its input and output, and what its output is; None: sound."""

    model: Any
    source: Path
    takes: str
    gives: str
    spectrum: Spectrum | None


def metadata_of(model: Any) -> dict[str, str]:
    """Return the metadata of an ONNX model."""
    return {each.key: each.value for each in model.metadata_props}


def inputs_of(model: Any) -> list[Any]:
    """Return the inputs of an ONNX model that must be fed."""
    constants = {each.name for each in model.graph.initializer}
    return [each for each in model.graph.input if each.name not in constants]


def vocoder_beside(path: Path, kind: str, file: str, rate: int, bands: int | None) -> Vocoder:
    """Return the vocoder in the folder of the acoustic model `path`, with the prefix `vocoder_` before its names.

    `kind` is what that model is called, `file` the vocoder that people download for it; `rate` and `bands` are those of
    the sound that it makes, None: any number of bands. Raises ModelError.
    """
    source = _source(path, kind, file)
    model = parsed_graph(source.read_bytes(), str(source))
    takes, outputs = inputs_of(model), [each.name for each in model.graph.output]
    if len(takes) != 1 or not outputs:
        raise ModelError(f"{source} is no vocoder of {path.name}", f"download one from {VOCODER_PAGE}")
    dim = takes[0].type.tensor_type.shape.dim
    own = dim[1].dim_value if len(dim) == 3 and dim[1].HasField("dim_value") else bands
    if bands is not None and own != bands:
        what = f"{source} is a vocoder of {own} bands of sound, not {bands}, as {path.name} has"
        raise ModelError(what, f"see {VOCODER_PAGE}")
    if (own_rate := metadata_of(model).get("sample_rate", str(rate))) != str(rate):
        what = f"{source} is a vocoder of {own_rate} Hz, not {rate}, as {path.name} has"
        raise ModelError(what, f"see {VOCODER_PAGE}")
    spectrum, taken = _spectrum_of(model, outputs, source), f"{_PREFIX}{takes[0].name}"
    return Vocoder(compose.add_prefix(model, _PREFIX), source, taken, f"{_PREFIX}{outputs[0]}", spectrum)


def _source(path: Path, kind: str, file: str) -> Path:
    found = [each for pattern in VOCODERS for each in sorted(path.resolve().parent.glob(pattern))]
    if not found:
        what = f"{path} is a {kind}, and no vocoder is beside it"
        raise ModelError(what, f"download {file} from {VOCODER_PAGE} into its folder")
    if len(found) > 1:
        raise ModelError(
            f"{path} has several vocoders beside it: {', '.join(each.name for each in found)}", "leave one"
        )
    return found[0]


def _spectrum_of(vocoder: Any, outputs: Sequence[str], source: Path) -> Spectrum | None:
    """Return what the outputs of a vocoder of Vocos are; None for one that gives sound. Raises ModelError."""
    if len(outputs) == 1:
        return None
    defaults: Mapping[str, str] = {"n_fft": "1024", "hop_length": "256", "win_length": "1024", "center": "1"}
    meta = {**defaults, **metadata_of(vocoder)}
    plain = meta.get("normalized", "0") == "0" and meta.get("window_type", "hann") == "hann"
    try:
        size, hop = int(meta["n_fft"]), int(meta["hop_length"])
        if len(outputs) != 3 or not plain or meta["win_length"] != meta["n_fft"] or not 0 < hop <= size <= 1 << 14:
            raise ValueError(
                f"{len(outputs)} outputs, a window {meta.get('window_type', 'hann')} of {meta['win_length']}"
            )
    except ValueError as error:
        raise ModelError(f"{source} is no vocoder that rigflow knows: {error}", f"see {VOCODER_PAGE}") from error
    mag, cosine, sine = (f"{_PREFIX}{name}" for name in outputs)
    return Spectrum((mag, cosine, sine), size, hop, meta["center"] != "0")


def of_one_version(models: Sequence[Any]) -> list[Any]:
    """Return models with the newest opset and file version among them, without metadata. Raises what onnx raises."""
    versions = [next(each.version for each in model.opset_import if not each.domain) for model in models]
    newest = max(*versions, _OPSET)
    made = [
        model if version == newest else version_converter.convert_version(model, newest)
        for model, version in zip(models, versions, strict=True)
    ]
    for model in made:
        del model.metadata_props[:]
        model.ir_version = max(each.ir_version for each in made)
    return made


def add_inverse_transform(graph: Any, spectrum: Spectrum) -> str:
    """Make sound of a spectrum, as torch.istft does: frames by an inverse Fourier transform, windowed, added where they
    overlap, and divided by the sum of the squared windows. Returns the name of the sound `[1, 1, S]`.
    """
    size, half = spectrum.size, spectrum.size // 2
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    bins = np.arange(half + 1)[:, None]
    weight = np.where((bins == 0) | (2 * bins == size), 1.0, 2.0) / size * window
    angle = 2 * np.pi * bins * np.arange(size) / size
    kernel = np.concatenate([weight * np.cos(angle), -weight * np.sin(angle)])[:, None]
    put = Putting(graph, "rigflow_istft")
    whole = np.int64
    mag, cosine, sine = spectrum.names
    both = put("Concat", put("Mul", mag, cosine), put("Mul", mag, sine), axis=1)
    frames = put("ConvTranspose", both, kernel.astype(np.float32), strides=[spectrum.hop])
    one_bin = put("Slice", mag, np.array([0], whole), np.array([1], whole), np.array([1], whole))
    ones = put(
        "ConstantOfShape", put("Shape", one_bin), value=helper.make_tensor("one", onnx.TensorProto.FLOAT, [1], [1])
    )
    squares = put("ConvTranspose", ones, (window**2)[None, None].astype(np.float32), strides=[spectrum.hop])
    sound = put("Div", frames, put("Max", squares, np.array(1e-8, np.float32)))
    if spectrum.centred:
        sound = put("Slice", sound, np.array([half], whole), np.array([-half], whole), np.array([2], whole))
    return sound


class Putting:
    """Appends nodes to a graph: `put(kind, *inputs)` returns the name of the result; an input is a name or a constant.

    Names begin with `prefix`. Constants of a subgraph go into `constants`, the graph around it.
    """

    def __init__(self, graph: Any, prefix: str, constants: Any = None) -> None:
        self._graph, self._prefix = graph, prefix
        self._constants = graph if constants is None else constants

    def __call__(self, kind: str, *inputs: str | Array, **attributes: Any) -> str:
        """Append a node."""
        made = f"{self._prefix}_{len(self._graph.node)}"
        names = []
        for place, each in enumerate(inputs):
            name = each if isinstance(each, str) else f"{made}_{place}"
            if not isinstance(each, str):
                self._constants.initializer.append(numpy_helper.from_array(each, name))
            names.append(name)
        self._graph.node.append(helper.make_node(kind, names, [made], **attributes))
        return made
