"""Whispers as optimum exports them, written here node by node: of random weights, or those of a CTranslate2 folder."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]
Weights = Mapping[str, Array]
_INT64 = np.int64
_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}  # of CTranslate2


class Sizes(NamedTuple):
    """Of a network; `states` is how many the encoder gives."""

    bands: int = 80
    width: int = 16
    heads: int = 2
    layers: int = 2
    inner: int = 24
    tokens: int = 60
    states: int = 1500


def random_weights(sizes: Sizes, seed: int = 1) -> dict[str, Array]:
    """Weights by the names that CTranslate2 has."""
    random = np.random.default_rng(seed)
    made: dict[str, Array] = {}

    def linear(name: str, out: int, inputs: int) -> None:
        made[f"{name}/weight"] = random.normal(0, 1 / np.sqrt(inputs), (out, inputs))
        made[f"{name}/bias"] = random.normal(0, 0.1, out)

    def norm(name: str) -> None:
        made[f"{name}/gamma"], made[f"{name}/beta"] = np.ones(width), np.zeros(width)

    width = sizes.width
    for number, inputs in ((1, sizes.bands), (2, width)):
        made[f"encoder/conv{number}/weight"] = random.normal(0, 1 / np.sqrt(3 * inputs), (width, inputs, 3))
        made[f"encoder/conv{number}/bias"] = np.zeros(width)
    made["encoder/position_encodings/encodings"] = random.normal(0, 1, (sizes.states, width))
    made["decoder/position_encodings/encodings"] = random.normal(0, 1, (448, width))
    made["decoder/embeddings/weight"] = random.normal(0, 1, (sizes.tokens, width))
    for side in ("encoder", "decoder"):
        norm(f"{side}/layer_norm")
        for layer in range(sizes.layers):
            block = f"{side}/layer_{layer}"
            parts = ["self_attention", "ffn", *(["attention"] if side == "decoder" else [])]
            for part in parts:
                norm(f"{block}/{part}/layer_norm")
            linear(f"{block}/self_attention/linear_0", 3 * width, width)
            linear(f"{block}/self_attention/linear_1", width, width)
            if side == "decoder":
                for number, times in enumerate((1, 2, 1)):
                    linear(f"{block}/attention/linear_{number}", times * width, width)
            linear(f"{block}/ffn/linear_0", sizes.inner, width)
            linear(f"{block}/ffn/linear_1", width, sizes.inner)
    return {name: array.astype(np.float32) for name, array in made.items()}


def ct2_weights(path: Path) -> dict[str, Array]:
    """The variables of a `model.bin` of CTranslate2, float32; see `engines.models.ct2_files`."""
    data, at = path.read_bytes(), 0

    def numbers(form: str) -> tuple[Any, ...]:
        nonlocal at
        found = struct.unpack_from(f"<{form}", data, at)
        at += struct.calcsize(f"<{form}")
        return found

    def text() -> str:
        nonlocal at
        [length] = numbers("H")
        at += length
        return data[at - length : at - 1].decode()

    numbers("I"), text()
    _, count = numbers("II")
    made = {}
    for _ in range(count):
        name, [rank] = text(), numbers("B")
        shape, (kind, nbytes) = numbers(f"{rank}I"), numbers("BI")
        dtype = np.dtype(_TYPES[kind])
        made[name] = np.frombuffer(data, dtype, nbytes // dtype.itemsize, at).reshape(shape).astype(np.float32)
        at += nbytes
    return made


def sizes_of(weights: Weights, heads: int) -> Sizes:
    """The sizes of a network with these weights."""
    width, bands, _ = weights["encoder/conv1/weight"].shape
    layers = {name.split("/")[1] for name in weights if name.startswith("decoder/layer_")} - {"layer_norm"}
    inner = len(weights["encoder/layer_0/ffn/linear_0/bias"])
    return Sizes(bands, width, heads, len(layers), inner, len(weights["decoder/embeddings/weight"]))


class _Graph:
    """Nodes and constants of a graph; constants of equal names are the same."""

    def __init__(self, weights: Weights, sizes: Sizes, dtype: Any) -> None:
        self.weights, self.sizes, self.dtype = weights, sizes, dtype
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def node(self, kind: str, *inputs: str | Array, **attributes: Any) -> str:
        names = [each if isinstance(each, str) else self.constant(f"c{len(self.constants)}", each) for each in inputs]
        name = attributes.pop("result", f"t{len(self.nodes)}")
        self.nodes.append(helper.make_node(kind, names, [name], **attributes))
        return name

    def constant(self, name: str, array: Array) -> str:
        array = np.asarray(array)
        self.constants[name] = numpy_helper.from_array(
            array if array.dtype == _INT64 else array.astype(self.dtype), name
        )
        return name

    def weight(self, name: str, transposed: bool = False) -> str:
        array = self.weights[name]
        return self.constant(f"{name}.t" if transposed else name, array.T if transposed else array)

    def linear(self, name: str, value: str, part: slice | None = None, bias: bool = True) -> str:
        label = f"{name}.{part.start if part else ''}"
        weight, shift = self.weights[f"{name}/weight"][part or slice(None)], self.weights[f"{name}/bias"]
        value = self.node("MatMul", value, self.constant(f"{label}.w", weight.T))
        return self.node("Add", value, self.constant(f"{label}.b", shift[part or slice(None)])) if bias else value

    def norm(self, name: str, value: str) -> str:
        names = self.weight(f"{name}/gamma"), self.weight(f"{name}/beta")
        return self.node("LayerNormalization", value, *names, axis=-1, epsilon=1e-5)

    def heads(self, value: str) -> str:
        count = self.sizes.heads
        shaped = self.node("Reshape", value, np.array([0, -1, count, self.sizes.width // count]))
        return self.node("Transpose", shaped, perm=[0, 2, 1, 3])

    def attention(self, queries: str, keys: str, values: str, mask: str = "") -> str:
        scale = np.array((self.sizes.width // self.sizes.heads) ** -0.25)
        turned = self.node("Transpose", keys, perm=[0, 1, 3, 2])
        scores = self.node("MatMul", self.node("Mul", queries, scale), self.node("Mul", turned, scale))
        scores = self.node("Add", scores, mask) if mask else scores
        mixed = self.node("MatMul", self.node("Softmax", scores, axis=-1), values)
        turned = self.node("Transpose", mixed, perm=[0, 2, 1, 3])
        return self.node("Reshape", turned, np.array([0, -1, self.sizes.width]))

    def gelu(self, value: str) -> str:
        erf = self.node("Erf", self.node("Div", value, np.array(np.sqrt(2))))
        return self.node("Mul", self.node("Mul", value, self.node("Add", erf, np.array(1.0))), np.array(0.5))

    def feed(self, block: str, value: str) -> str:
        inner = self.linear(f"{block}/ffn/linear_0", self.norm(f"{block}/ffn/layer_norm", value))
        return self.node("Add", value, self.linear(f"{block}/ffn/linear_1", self.gelu(inner)))

    def projections(self, name: str, value: str) -> list[str]:
        width = self.sizes.width
        parts = [slice(number * width, (number + 1) * width) for number in range(3)]
        return [self.heads(self.linear(name, value, part, number != 1)) for number, part in enumerate(parts)]


def encoder(weights: Weights, sizes: Sizes, dtype: Any = np.float32) -> Any:
    """A model of `encoder_model.onnx`."""
    graph = _Graph(weights, sizes, dtype)
    value = "input_features"
    for number in (1, 2):
        names = [graph.weight(f"encoder/conv{number}/{part}") for part in ("weight", "bias")]
        value = graph.gelu(graph.node("Conv", value, *names, pads=[1, 1], strides=[number]))
    value = graph.node("Transpose", value, perm=[0, 2, 1])
    value = graph.node("Add", value, graph.weight("encoder/position_encodings/encodings"))
    for layer in range(sizes.layers):
        block = f"encoder/layer_{layer}"
        name = f"{block}/self_attention"
        found = graph.attention(*graph.projections(f"{name}/linear_0", graph.norm(f"{name}/layer_norm", value)))
        value = graph.feed(block, graph.node("Add", value, graph.linear(f"{name}/linear_1", found)))
    names = graph.weight("encoder/layer_norm/gamma"), graph.weight("encoder/layer_norm/beta")
    graph.nodes.append(
        helper.make_node("LayerNormalization", [value, *names], ["last_hidden_state"], axis=-1, epsilon=1e-5)
    )
    inputs = [_tensor("input_features", dtype, ["batch_size", sizes.bands, 2 * sizes.states])]
    outputs = [_tensor("last_hidden_state", dtype, ["batch_size", sizes.states, sizes.width])]
    return _model(helper.make_graph(graph.nodes, "encoder", inputs, outputs, list(graph.constants.values())))


def decoder(weights: Weights, sizes: Sizes, past: bool, dtype: Any = np.float32) -> Any:
    """A model of `decoder_model.onnx`, or with `past` of `decoder_with_past_model.onnx`."""
    graph, prefix = _Graph(weights, sizes, dtype), "past_key_values"
    key = f"{prefix}.0.decoder.key"
    length = graph.node("Gather", graph.node("Shape", "input_ids"), np.array([1]), axis=0)
    before = graph.node("Gather", graph.node("Shape", key), np.array([2]), axis=0) if past else np.array([0])
    ends = graph.node("Add", length, before)
    zero, one = (graph.constant(f"s{number}", np.array(number)) for number in (0, 1))
    scalar = [graph.node("Squeeze", each) for each in (before, ends)]
    places = graph.node("Range", *scalar, one)
    value = graph.node("Gather", graph.weight("decoder/embeddings/weight"), "input_ids", axis=0)
    rows = graph.node("Gather", graph.weight("decoder/position_encodings/encodings"), places, axis=0)
    value = graph.node("Add", value, rows)
    later = graph.node(
        "Less", graph.node("Unsqueeze", places, np.array([1])),
        graph.node("Unsqueeze", graph.node("Range", zero, scalar[1], one), np.array([0])),
    )  # fmt: skip
    mask = graph.node("Where", later, np.array(-1e4), np.array(0.0))
    outputs = {}
    for layer in range(sizes.layers):
        block = f"decoder/layer_{layer}"
        name = f"{block}/self_attention"
        found = graph.projections(f"{name}/linear_0", graph.norm(f"{name}/layer_norm", value))
        kept = dict(zip(("key", "value"), found[1:], strict=True))
        for part, each in kept.items():
            joined = [f"{prefix}.{layer}.decoder.{part}", each] if past else [each]
            kept[part] = graph.node("Concat", *joined, axis=2, result=f"present.{layer}.decoder.{part}")
            outputs[f"{layer}.decoder.{part}"] = kept[part]
        found = graph.attention(found[0], kept["key"], kept["value"], mask)
        value = graph.node("Add", value, graph.linear(f"{name}/linear_1", found))
        name = f"{block}/attention"
        queries = graph.heads(graph.linear(f"{name}/linear_0", graph.norm(f"{name}/layer_norm", value)))
        heard = [f"{prefix}.{layer}.encoder.{part}" for part in ("key", "value")]
        if not past:
            heard = [each.replace(prefix, "present") for each in heard]
            for number, result in enumerate(heard):
                part_of = slice(number * sizes.width, (number + 1) * sizes.width)
                made = graph.heads(graph.linear(f"{name}/linear_1", "encoder_hidden_states", part_of, number == 1))
                outputs[result.partition(".")[2]] = graph.node("Identity", made, result=result)
        found = graph.attention(queries, *heard)
        value = graph.feed(block, graph.node("Add", value, graph.linear(f"{name}/linear_2", found)))
    value = graph.norm("decoder/layer_norm", value)
    graph.node("MatMul", value, graph.weight("decoder/embeddings/weight", True), result="logits")
    return _model(_decoder_graph(graph, sizes, past, dtype, outputs))


def _decoder_graph(graph: _Graph, sizes: Sizes, past: bool, dtype: Any, outputs: Mapping[str, str]) -> Any:
    inputs = [_tensor("input_ids", _INT64, ["batch_size", "decoder_sequence_length"])]
    if not past:
        inputs.append(_tensor("encoder_hidden_states", dtype, ["batch_size", "encoder_sequence_length", sizes.width]))
    inputs += _caches(sizes, dtype) if past else []
    logits = _tensor("logits", dtype, ["batch_size", "decoder_sequence_length", sizes.tokens])
    given = [logits, *(_tensor(f"present.{name}", dtype, [None] * 4) for name in outputs)]
    return helper.make_graph(graph.nodes, "decoder", inputs, given, list(graph.constants.values()))


def merged(first: Any, following: Any, sizes: Sizes, dtype: Any = np.float32) -> Any:
    """A model of `decoder_model_merged.onnx`, whose branches share their weights."""
    constants: dict[str, Any] = {}
    names = [each.name for each in first.graph.output]
    branches = {}
    for label, model in (("else_branch", first), ("then_branch", following)):
        graph = model.graph
        shared = [each for each in graph.initializer if _is_large(each)]
        kept = [each for each in graph.initializer if not _is_large(each)]
        nodes, there = list(graph.node), {each.name for each in graph.output}
        for name in names:
            if name not in there:  # as optimum does, so that both branches give the same outputs
                empty = numpy_helper.from_array(np.zeros((0, sizes.heads, 1, sizes.width // sizes.heads), dtype))
                nodes.append(helper.make_node("Constant", [], [name], value=empty))
        outputs = list(first.graph.output)
        branches[label] = helper.make_graph(nodes, label, [], outputs, kept)
        constants |= {each.name: each for each in shared}
    choice = helper.make_node("If", ["use_cache_branch"], names, **branches)
    states = _tensor("encoder_hidden_states", dtype, ["batch_size", "encoder_sequence_length", sizes.width])
    ids = _tensor("input_ids", _INT64, ["batch_size", "decoder_sequence_length"])
    which = helper.make_tensor_value_info("use_cache_branch", TensorProto.BOOL, [1])
    inputs = [ids, states, *_caches(sizes, dtype), which]
    return _model(helper.make_graph([choice], "merged", inputs, list(first.graph.output), list(constants.values())))


def _is_large(constant: Any) -> bool:
    return int(np.prod(constant.dims)) > 100


def _caches(sizes: Sizes, dtype: Any) -> list[Any]:
    made = []
    for layer in range(sizes.layers):
        for side in ("decoder", "encoder"):
            shape = ["batch_size", sizes.heads, f"{side}_length", sizes.width // sizes.heads]
            made += [_tensor(f"past_key_values.{layer}.{side}.{part}", dtype, shape) for part in ("key", "value")]
    return made


def _tensor(name: str, dtype: Any, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)


def _model(graph: Any) -> Any:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_export(
    folder: Path,
    weights: Weights,
    sizes: Sizes,
    form: str = "merged",
    suffix: str = "",
    dtype: Any = np.float32,
    **settings: Any,
) -> Path:
    """Write a folder without a tokenizer; `form` is "merged" or "two". `settings` go to generation_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    first, following = (decoder(weights, sizes, past, dtype) for past in (False, True))
    made = {"encoder_model": encoder(weights, sizes, dtype)}
    if form == "merged":
        made["decoder_model_merged"] = merged(first, following, sizes, dtype)
    else:
        made |= {"decoder_model": first, "decoder_with_past_model": following}
    for name, model in made.items():
        (folder / f"{name}{suffix}.onnx").write_bytes(model.SerializeToString())
    config = {
        "model_type": "whisper", "d_model": sizes.width, "num_mel_bins": sizes.bands, "vocab_size": sizes.tokens,
        "encoder_layers": sizes.layers, "decoder_layers": sizes.layers, "decoder_attention_heads": sizes.heads,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps(settings))
    return folder


def exported(folder: Path, made: Path, dtype: Any = np.float32) -> Path:
    """The network of a folder of faster-whisper as optimum exports it, with its tokenizer and settings."""
    weights = ct2_weights(folder / "model.bin")
    config = json.loads((folder / "config.json").read_text())
    settings = {"alignment_heads": config["alignment_heads"], "begin_suppress_tokens": config["suppress_ids_begin"]}
    width = len(weights["encoder/conv1/bias"])
    write_export(made, weights, sizes_of(weights, width // 64), dtype=dtype, **settings)
    (made / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    return made
