"""The graph of a language model in a folder of GenAI, where it can be computed over rows of several texts.

Each text has a row of keys and values that is as long as the context. The operator GroupQueryAttention writes into it
and reads as many as the row's mask says, so that rows of any lengths share a run. Other operators of attention append
to what they are given.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engines.content import ModelFiles
from engines.inference.genai_folder import number_in, parsed
from engines.inference.weights import external_tensors, location_of, parsed_graph
from engines.speech.network import file_named
from schemas.errors import ModelError
from schemas.model import ModelSpec

IDS, MASK, POSITIONS, LOGITS = "input_ids", "attention_mask", "position_ids", "logits"
_ATTENTION = "GroupQueryAttention"
_ELEMENT_BYTES = {1: 4, 10: 2, 16: 2}  # FLOAT, FLOAT16 and BFLOAT16 of TensorProto.DataType


@dataclass(frozen=True, slots=True)
class DecoderGraph:
    """A graph that can be loaded, and its keys and values: `past` are inputs, `present` the outputs in their order.

    Of a row, each has `heads` x context x `width` numbers of the ONNX type `element`, of `element_bytes` each.
    """

    content: ModelFiles
    past: tuple[str, ...]
    present: tuple[str, ...]
    heads: int
    width: int
    element: int
    logits_element: int
    vocabulary: int
    has_positions: bool

    @property
    def element_bytes(self) -> int:
        """Bytes of a number."""
        return _ELEMENT_BYTES[self.element]


def decoder_graph(model: ModelFiles, spec: ModelSpec) -> DecoderGraph | None:
    """Return the graph of a folder; None: it cannot be computed over rows. Raises ModelError: it cannot be read."""
    config = parsed(model.graph, spec.name)
    decoder = config["model"]["decoder"]
    path = model.folder / file_named(spec.files, decoder["filename"], spec.name).sha256
    try:
        message = parsed_graph(path.read_bytes(), spec.name)
    except OSError as error:
        raise ModelError(f"model {spec.name}: cannot read {path}: {error.strerror}", "add it again") from error
    heads, width, layers = (
        number_in(config, f"model.decoder.{key}", spec.name)
        for key in ("num_key_value_heads", "head_size", "num_hidden_layers")
    )
    past, present = _names(decoder, "inputs", "past", layers), _names(decoder, "outputs", "present", layers)
    if not _fits(message.graph, past, present, (heads, width)):
        return None
    [logits] = [_sizes(each.type.tensor_type) for each in message.graph.output if each.name == LOGITS]
    types = {each.name: each.type.tensor_type.elem_type for each in (*message.graph.input, *message.graph.output)}
    _use_files(message, spec)
    content = ModelFiles(message.SerializeToString(deterministic=True), model.files, model.folder)
    kinds = types[past[0]], types[LOGITS]
    return DecoderGraph(content, past, present, heads, width, *kinds, logits[2], POSITIONS in types)


def _names(decoder: Mapping[str, Any], side: str, which: str, layers: int) -> tuple[str, ...]:
    """Names of keys and values, as the settings have them, or as GenAI has them without."""
    given = decoder.get(side)
    named = given if isinstance(given, dict) else {}
    defaults = {"past": "past_key_values.%d.{}", "present": "present.%d.{}"}[which]
    patterns = [str(named.get(f"{which}_{kind}_names", defaults.format(kind))) for kind in ("key", "value")]
    return tuple(pattern.replace("%d", str(layer)) for layer in range(layers) for pattern in patterns)


def _fits(graph: Any, past: tuple[str, ...], present: tuple[str, ...], sizes: tuple[int, int]) -> bool:
    """Whether a graph has the inputs and outputs that are known, and attention that writes in place."""
    inputs = {each.name: each.type.tensor_type for each in graph.input}
    inputs = {name: each for name, each in inputs.items() if name not in {one.name for one in graph.initializer}}
    outputs = {each.name: each.type.tensor_type for each in graph.output}
    if not {IDS, MASK, *past} <= set(inputs) <= {IDS, MASK, POSITIONS, *past} or not {LOGITS, *present} <= set(outputs):
        return False
    kept = [inputs[name] for name in past] + [outputs[name] for name in present]
    if len({each.elem_type for each in kept}) > 1 or kept[0].elem_type not in _ELEMENT_BYTES:
        return False
    found = [_sizes(each)[1::2] for each in kept[: len(past)]]
    if any(
        len(each) != 2 or any(size not in (0, known) for size, known in zip(each, sizes, strict=True)) for each in found
    ):
        return False
    logits = outputs[LOGITS]
    if (
        logits.elem_type not in _ELEMENT_BYTES
        or len(_sizes(logits)) != 3
        or _sizes(logits)[1] == 1
        or not _sizes(logits)[2]
    ):
        return False
    makers = {output: node.op_type for node in graph.node for output in node.output}
    return all(makers.get(name) == _ATTENTION for name in present)


def _sizes(tensor: Any) -> tuple[int, ...]:
    """Sizes of a tensor's dimensions; 0: free."""
    return tuple(each.dim_value for each in tensor.shape.dim)


def _use_files(message: Any, spec: ModelSpec) -> None:
    """Name files of weights by their SHA-256, as `engines.inference.weights` wants it. Raises ModelError."""
    for tensor in external_tensors(message):
        sha256 = file_named(spec.files, location_of(tensor), spec.name).sha256
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = sha256
