"""Takes models that speak, as their authors publish them, to one form: voices of Piper, Kokoro and Matcha.

That form has the inputs `symbols [1, L]` int64, `speed [1]` float32, where there are voices `voice [1, V]` float32, the
share of each, and where its graph draws random numbers `noise [1, 2]` float32, how much of them, and `draw [1, 2]`
int64, which. A cloned voice has `steps [1]` int64 and `guidance [1]` float32, too. The output is `sound [1, S]`
float32. What the files say of symbols, voices and rate goes into the metadata of the graph, where
`engines.models.companions.speech` finds it.

ONNX Runtime's random numbers differ from run to run. They are taken from a table instead, from an element and by steps
that `draw` names, so that a sentence sounds the same on every machine, however it is retried.

Sources: Piper's VITS.md and piper_train/export_onnx.py (input, input_lengths, scales, sid); kokoro-onnx, and
KPipeline.infer of kokoro for the row of a voice (`pack[len(ps) - 1]`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from engines.models.companions.speech import METADATA
from engines.models.matcha import INPUTS, read_matcha
from engines.models.surgery import Surgery
from engines.models.voices import kokoro_symbols, kokoro_voices, piper_settings
from engines.part import Array
from schemas.errors import ModelError
from schemas.speech import SpeechSpec

_PIPER = frozenset(("input", "input_lengths", "scales"))
_TOKENS = ("tokens", "input_ids")  # what exports of Kokoro call their symbols
_OWN = frozenset(("symbols", "speed", "voice", "noise", "draw", "sound"))
_TABLE = 1 << 18
_OPSET = 12  # with Range, Mod, and Min of whole numbers
_APART = 97_003  # between the elements where the nodes of a graph begin


def speaking(graph: bytes, path: Path) -> tuple[bytes, list[Path]] | None:
    """Return a model that speaks in the form that travels, and the files beside it that were read; None for others.

    Raises ModelError: files that belong to it are missing or damaged.
    """
    model = _own_names(Surgery(graph, path.name))
    names = {each.name for each in model.inputs}
    if names >= _PIPER and names <= _PIPER | {"sid"}:
        return _piper(model, path)
    if len(names) == 3 and names >= {"style", "speed"} and names & set(_TOKENS):
        return _kokoro(model, path)
    if names == INPUTS:
        return _matcha(graph, path)
    return None


def _piper(model: Surgery, path: Path) -> tuple[bytes, list[Path]]:
    speech, length, source = piper_settings(path)
    if ("sid" in {each.name for each in model.inputs}) != bool(speech.voices):
        raise ModelError(f"{path.name} and {source.name} disagree about its speakers", "download both again")
    _rename(model, "input", "symbols", int(TensorProto.INT64), [1, "symbols"])
    count = model.front("Gather", model.front("Shape", "symbols"), np.ones(1, np.int64))
    _feed(model, "input_lengths", "Identity", count)
    slow = model.front("Div", np.array([length], np.float32), "speed")
    both = model.front("Reshape", "noise", np.array([-1], np.int64))
    parts = [model.front("Gather", both, np.array([each], np.int64)) for each in (0, 1)]
    _feed(model, "scales", "Concat", parts[0], slow, parts[1], axis=0)
    _add_input(model, "speed", TensorProto.FLOAT, [1])
    _add_input(model, "noise", TensorProto.FLOAT, [1, 2])
    if speech.voices:
        _feed(model, "sid", "ArgMax", "voice", axis=1, keepdims=0)
        _add_input(model, "voice", TensorProto.FLOAT, [1, len(speech.voices)])
    return finished(model, speech), [source]


def _matcha(graph: bytes, path: Path) -> tuple[bytes, list[Path]]:
    found = read_matcha(graph, path)
    model = _own_names(Surgery(found.graph, path.name))
    _rename(model, "x", "symbols", int(TensorProto.INT64), [1, "symbols"])
    count = model.front("Gather", model.front("Shape", "symbols"), np.ones(1, np.int64))
    _feed(model, "x_length", "Identity", count)
    both = model.front("Reshape", "noise", np.array([-1], np.int64))
    _feed(model, "noise_scale", "Gather", both, np.array([0], np.int64))
    _feed(model, "length_scale", "Div", np.ones(1, np.float32), "speed")
    _add_input(model, "speed", TensorProto.FLOAT, [1])
    _add_input(model, "noise", TensorProto.FLOAT, [1, 2])
    return finished(model, found.speech), found.files


def _kokoro(model: Surgery, path: Path) -> tuple[bytes, list[Path]]:
    symbols, of_symbols = kokoro_symbols(path)
    voices, of_voices = kokoro_voices(path)
    speech = SpeechSpec(
        rate=24000,
        alphabet="misaki",
        symbols=symbols,
        begin=(0,),
        end=(0,),
        most=512,
        voices=tuple(voices),
        languages=tuple(map(_kokoro_language, voices)),
        blends=True,
    )
    tokens = next(each.name for each in model.inputs if each.name in _TOKENS)
    speed = next(each.type.tensor_type.elem_type for each in model.inputs if each.name == "speed")
    _rename(model, tokens, "symbols", int(TensorProto.INT64), [1, "symbols"])
    count = model.front("Gather", model.front("Shape", "symbols"), np.array(1, np.int64))
    rows = np.stack(list(voices.values()))
    row = model.front("Max", model.front("Sub", count, np.array(3, np.int64)), np.array(0, np.int64))
    row = model.front("Min", row, np.array(rows.shape[1] - 1, np.int64))
    styles = model.front("Gather", rows, row, axis=1)
    _feed(model, "style", "MatMul", "voice", styles)
    if speed != TensorProto.FLOAT:
        inner = model.fresh("rigflow_speed")
        model.read_instead("speed", inner)
        model.front("Cast", "speed", result=inner, to=speed)
        model.drop_input("speed")
        _add_input(model, "speed", TensorProto.FLOAT, [1])
    _add_input(model, "voice", TensorProto.FLOAT, [1, len(voices)])
    return finished(model, speech), [of_symbols, *of_voices]


def _kokoro_language(voice: str) -> str:
    """Return espeak-ng's name of the language of a voice: the first letter of its name."""
    names = {"b": "en-gb-x-rp", "e": "es", "f": "fr", "h": "hi", "i": "it", "j": "ja", "p": "pt-br", "z": "cmn"}
    return names.get(voice[:1], "en-us")


def finished(model: Surgery, speech: SpeechSpec) -> bytes:
    """Return the file, its output made `sound [1, S]`, its random numbers drawn from a table."""
    if len(model.graph.output) != 1:
        raise ModelError(f"model `{model.name}` speaks, and has {len(model.graph.output)} outputs", "export one")
    made = model.graph.output[0].name
    inner = model.behind("Cast", made, to=int(TensorProto.FLOAT))
    model.behind("Reshape", inner, np.array([1, -1], np.int64), result="sound")
    del model.graph.output[:]
    model.add_output("sound", [1, "samples"])
    model.apply()
    model.check_opset(_OPSET, "speaks")
    if _draw_from_table(model):
        _add_input(model, "draw", TensorProto.INT64, [1, 2])
    text = speech.model_dump_json(exclude_defaults=True)
    return model.finish({METADATA: text})


def _own_names(model: Surgery) -> Surgery:
    """Return the model, whose tensors have other names than the inputs and the output that it gets."""
    given = {each.name for each in model.inputs}
    for name in _OWN - given:
        free = model.fresh(name)
        if free != name:
            model.read_instead(name, free)
            for output in model.graph.output:
                output.name = free if output.name == name else output.name
    return model


def _rename(model: Surgery, old: str, new: str, dtype: int, shape: list[int | str]) -> None:
    model.drop_input(old)
    model.read_instead(old, new)
    _add_input(model, new, dtype, shape)


def _add_input(model: Surgery, name: str, dtype: int, shape: list[int | str]) -> None:
    model.graph.input.append(helper.make_tensor_value_info(name, dtype, shape))


def _feed(model: Surgery, name: str, kind: str, *inputs: Any, **attributes: Any) -> None:
    """Make an input of the graph from others."""
    model.drop_input(name)
    model.front(kind, *inputs, result=name, **attributes)


def _draw_from_table(model: Surgery) -> bool:
    """Replace each node that draws normal numbers; return whether there are any. Raises ModelError for other kinds."""
    kinds = {node.op_type for node in model.all_nodes() if node.op_type.startswith("Random") or node.op_type in _DRAW}
    own = [node for node in model.graph.node if node.op_type == "RandomNormalLike"]
    if kinds - {"RandomNormalLike"} or sum(n.op_type == "RandomNormalLike" for n in model.all_nodes()) > len(own):
        what = f"model `{model.name}` draws random numbers by {', '.join(sorted(kinds))}"
        raise ModelError(what, "each run would sound otherwise: export it so that it draws by RandomNormalLike alone")
    if not own:
        return False
    table = model.fresh("rigflow_normal")
    model.add_constant(table, _normal_numbers())
    nodes: list[Any] = []
    for node in model.graph.node:
        nodes += _drawn(model, node, table, own.index(node)) if node in own else [node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return True


_DRAW = frozenset(("Multinomial", "Bernoulli"))


def _drawn(model: Surgery, node: Any, table: str, number: int) -> list[Any]:
    """Return the nodes that stand for one that draws: element i is `table[(draw[0, 0] + i * draw[0, 1]) % size]`."""
    attributes: Mapping[str, Any] = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    made: list[Any] = []

    def put(kind: str, *inputs: str | Array, result: str = "", **given: Any) -> str:
        names = [each if isinstance(each, str) else constant(each) for each in inputs]
        result = result or model.fresh(f"rigflow_draw_{kind.lower()}")
        made.append(helper.make_node(kind, names, [result], model.fresh("rigflow_draw"), **given))
        return result

    def constant(array: Array) -> str:
        name = model.fresh("rigflow_draw_constant")
        model.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    whole = np.int64
    places = put("Range", np.array(0, whole), put("Size", node.input[0]), np.array(1, whole))
    drawn = put("Reshape", "draw", np.array([-1], whole))
    first, step = (put("Gather", drawn, np.array([each], whole)) for each in (0, 1))
    first = put("Add", first, np.array([number * _APART], whole))
    places = put("Mod", put("Add", put("Mul", places, step), first), np.array([_TABLE], whole))
    numbers = put("Gather", table, places)
    for kind, name, neutral in (("Mul", "scale", 1.0), ("Add", "mean", 0.0)):
        if attributes.get(name, neutral) != neutral:
            numbers = put(kind, numbers, np.array(attributes[name], np.float32))
    shaped = put("Reshape", numbers, put("Shape", node.input[0]))
    put("Cast", shaped, result=node.output[0], to=attributes.get("dtype", int(TensorProto.FLOAT)))
    return made


def _normal_numbers() -> Array:
    """Return a table of normal numbers: by Box and Muller of the raw bits of Philox, equal in every NumPy."""
    raw = np.random.Philox(key=0).random_raw(_TABLE).astype(np.uint64)
    high = ((raw >> np.uint64(40)).astype(np.float64) + 0.5) / (1 << 24)
    low = (raw & np.uint64(0xFFFFFF)).astype(np.float64) / (1 << 24)
    numbers: Array = (np.sqrt(-2 * np.log(high)) * np.cos(2 * np.pi * low)).astype(np.float32)
    return numbers
