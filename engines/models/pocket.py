"""Makes a voice of a Pocket TTS and a sound: one graph of sound, in the form of `engines.models.speech`.

A Pocket TTS (Kyutai) has five networks. `encoder` makes conditions of a sound, `text` of pieces of a text. `main` is a
transformer with a state: it reads the conditions of the voice, then those of the text, then one frame of 80 ms after
the other, and says of each what the next one follows from, and whether the text has ended. `flow` moves random numbers
to that frame. `decoder`, which has a state too, makes sound of frames. The voice is read here, once, so that its state
is a constant of the graph; frames and sound are two loops, and the random numbers come from a table.

Sources: sherpa-onnx, csrc/offline-tts-pocket-impl.h and offline-tts-pocket-model.cc (inputs by place, first states,
-4 as the end, 15 frames at a time to the decoder); kyutai-labs/pocket-tts, models/tts_model.py (most frames of a text,
frames behind its end).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, compose, helper, numpy_helper

from engines.models.pocket_folder import AGAIN, PocketFiles, Settings, settings_of
from engines.models.pocket_networks import Networks, first_state, networks_of, voice_of
from engines.models.vocoder import Putting, inputs_of, of_one_version
from engines.part import Array
from engines.speaking.pieces import SPACE
from schemas.errors import ModelError
from schemas.speech import Consent, SpeechSpec

RATE = 24000
_FRAMES_A_S = 12.5
_PIECES_A_S, _MORE_S = 3.0, 2.0  # for the most frames of a text
_MOST_FRAMES = 500
_END = -4.0  # a logit above it: the text has ended
_AFTER, _AFTER_FEW, _FEW_WORDS = 3, 5, 4  # frames behind the end; of a text of few words
_DECODED = 15  # frames that the decoder takes at a time
_SMALL = 64  # numbers of an array that is stored as it is
_FLOAT, _INT64 = TensorProto.FLOAT, np.int64


def with_voice(files: PocketFiles, sound: Array, consent: Consent) -> tuple[bytes, SpeechSpec]:
    """Return the graph that speaks with the voice of `sound [S]` float32 at 24 kHz, and what goes with it.

    Raises ModelError.
    """
    settings = settings_of(files)
    networks = networks_of(files)
    voice = voice_of(files, networks, sound, settings.bos)
    speech = SpeechSpec(
        rate=RATE,
        alphabet="pieces",
        symbols={piece: (number,) for piece, (number, _) in sorted(settings.pieces.items())},
        scores={piece: score for piece, (_, score) in sorted(settings.pieces.items())},
        padded=settings.padded,
        most=settings.most,
        noise=(float(np.sqrt(max(0.0, settings.temperature))), 0.0),
        steps=1,
        consent=consent,
    )
    try:
        return _graph(networks, voice, settings), speech
    except Exception as error:  # onnx raises many kinds
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"the networks in {files.folder} do not become one graph: {reason}", AGAIN) from error


def _graph(networks: Networks, voice: Sequence[Array], settings: Settings) -> bytes:
    """Return the graph: `symbols`, `noise` and `steps` become the sound."""
    parts = ("text", "main", "flow", "decoder")
    named = [compose.add_prefix(networks.models[part], f"{part}_") for part in parts]
    text, main, flow, decoder = of_one_version(named)
    value = helper.make_tensor_value_info
    inputs = [value("symbols", TensorProto.INT64, [1, "symbols"]), value("noise", _FLOAT, [1, 2])]
    graph = helper.make_graph([], "pocket", [*inputs, value("steps", TensorProto.INT64, [1])], [])
    for each in (text, main, flow, decoder):
        graph.initializer.extend(each.graph.initializer)
        graph.sparse_initializer.extend(each.graph.sparse_initializer)
    put = Putting(graph, "rigflow_pocket")
    _name(graph, "Identity", "symbols", inputs_of(text)[0].name)
    graph.node.extend(text.graph.node)
    condition = put("Reshape", text.graph.output[0].name, np.array([1, -1, networks.width], _INT64))
    frames = _put_frames(graph, put, (main, flow), networks, condition, voice, settings)
    sound = _put_sound(graph, put, decoder, networks, frames)
    graph.output.append(value(sound, _FLOAT, [1, 1, "samples"]))
    imports = {each.domain: each for one in (text, main, flow, decoder) for each in one.opset_import}
    made = helper.make_model(graph, opset_imports=list(imports.values()), ir_version=main.ir_version)
    return bytes(made.SerializeToString(deterministic=True))


def _put_frames(
    graph: Any,
    put: Putting,
    models: tuple[Any, Any],
    networks: Networks,
    condition: str,
    voice: Sequence[Array],
    settings: Settings,
) -> str:
    """Append the loop of frames; return them, `[1, N, latent]`. Its first turn reads the text, and gives no frame."""
    main, flow = models
    latent, width = networks.latent, networks.width
    noise = put("ConstantOfShape", np.array([_MOST_FRAMES, latent], _INT64))
    scale = put("Slice", put("Reshape", "noise", np.array([-1], _INT64)), np.array([0], _INT64), np.array([1], _INT64))
    noise = put("Mul", put("RandomNormalLike", noise, dtype=int(_FLOAT)), scale)
    after, share = _put_after(put, settings), put("Div", np.array(1, np.float32), _number(put, "steps"))
    own = inputs_of(main)
    body = helper.make_graph([], "frame", _carried("frame", own[2:]), [])
    within = Putting(body, "rigflow_frame", graph)
    for name, given in ((own[0].name, "frame_last"), (own[1].name, "frame_condition")):
        _name(body, "Identity", given, name)
    body.node.extend(main.graph.node)
    made, logit, *states = [each.name for each in main.graph.output]
    step = within("Sub", "frame_turn", np.array(1, _INT64))
    over = within(
        "Greater",
        within("Gather", within("Reshape", logit, np.array([-1], _INT64)), np.array(0, _INT64)),
        np.array(_END, np.float32),
    )
    none_yet = within("Less", "frame_end", np.array(0, _INT64))
    ends = within("And", within("And", over, none_yet), within("Not", within("Less", step, np.array(0, _INT64))))
    end = within("Where", ends, step, "frame_end")
    goes_on = within("Less", within("Add", step, np.array(1, _INT64)), within("Add", end, after))
    more = within("Or", within("Less", end, np.array(0, _INT64)), goes_on)
    row = within("Gather", noise, within("Max", step, np.array(0, _INT64)))
    moved = _put_flow(body, within, flow, (graph, made, within("Reshape", row, np.array([1, -1], _INT64)), share))
    frame = within("Reshape", moved, np.array([1, 1, latent], _INT64))
    reads = within("Less", step, np.array(0, _INT64))
    last = within("Where", reads, np.full((1, 1, latent), np.nan, np.float32), frame)  # no number: frames begin
    empty = within("Identity", np.zeros((1, 0, width), np.float32))
    outputs = [more, last, empty, end, *states, frame]
    body.output.extend(
        _untyped(outputs, [TensorProto.BOOL, _FLOAT, _FLOAT, TensorProto.INT64, *_kinds(own[2:]), _FLOAT])
    )
    first = put("Identity", np.zeros((1, 0, latent), np.float32))
    begins = [first, condition, put("Identity", np.array(-1, _INT64)), *(_held(put, each) for each in voice)]
    turns = put("Add", _put_most(put), np.array(1, _INT64))
    gathered = _loop(graph, put, turns, begins, body, 1)[-1]
    whole = put("Reshape", gathered, np.array([1, -1, latent], _INT64))
    return put("Slice", whole, np.array([1], _INT64), np.array([1 << 40], _INT64), np.array([1], _INT64))


def _put_most(put: Putting) -> str:
    """Return how many frames a text has at most."""
    seconds = put("Div", put("Cast", put("Size", "symbols"), to=int(_FLOAT)), np.array(_PIECES_A_S, np.float32))
    frames = put("Mul", put("Add", seconds, np.array(_MORE_S, np.float32)), np.array(_FRAMES_A_S, np.float32))
    return put("Min", put("Cast", put("Ceil", frames), to=int(TensorProto.INT64)), np.array(_MOST_FRAMES, _INT64))


def _put_after(put: Putting, settings: Settings) -> str:
    """Return how many frames follow the end: of few words, more.

    A word begins at a piece that begins with a space, but not where spaces follow each other.
    """
    if settings.after is not None:
        return put("Identity", np.array(settings.after, _INT64))
    spaced, bare = np.zeros((2, 1 + max(number for number, _ in settings.pieces.values())), _INT64)
    for piece, (number, _) in settings.pieces.items():
        spaced[number], bare[number] = piece.startswith(SPACE), not piece.strip(SPACE)
    begins = put("Gather", spaced, "symbols")
    behind = put("Slice", begins, np.array([1], _INT64), np.array([1 << 40], _INT64), np.array([1], _INT64))
    behind = put("Concat", behind, np.ones((1, 1), _INT64), axis=1)
    words = put("Sub", begins, put("Mul", put("Gather", bare, "symbols"), behind))
    few = put("Less", put("ReduceSum", words, keepdims=0), np.array(_FEW_WORDS + 1, _INT64))
    return put("Where", few, np.array(_AFTER_FEW, _INT64), np.array(_AFTER, _INT64))


def _put_flow(graph: Any, put: Putting, flow: Any, given: tuple[Any, str, str, str]) -> str:
    """Append the loop of the steps from random numbers to a frame; `given`: the outermost graph, the condition, the
    numbers, and the share of a step. Step i of n goes from time i / n to i / n + 1 / n.
    """
    outer, condition, numbers, share = given
    c, s, t, x = (each.name for each in inputs_of(flow))
    value = helper.make_tensor_value_info
    inside = [value("flow_turn", TensorProto.INT64, []), value("flow_more", TensorProto.BOOL, [])]
    body = helper.make_graph([], "step", [*inside, value(x, _FLOAT, None)], [])
    within = Putting(body, "rigflow_flow", outer)
    begin = within("Mul", within("Cast", "flow_turn", to=int(_FLOAT)), share)
    for name, each in ((s, begin), (t, within("Add", begin, share))):
        _name(body, "Reshape", each, name, within("Identity", np.array([1, 1], _INT64)))
    _name(body, "Identity", condition, c)
    body.node.extend(flow.graph.node)
    moved = within("Add", x, within("Mul", flow.graph.output[0].name, share))
    body.output.extend(_untyped([within("Identity", "flow_more"), moved], [TensorProto.BOOL, _FLOAT]))
    [made] = _loop(graph, put, put("Reshape", "steps", np.zeros(0, _INT64)), [numbers], body, 0)
    return made


def _put_sound(graph: Any, put: Putting, decoder: Any, networks: Networks, frames: str) -> str:
    """Append the loop of the decoder, some frames at a time; return the sound `[1, 1, S]`."""
    own = inputs_of(decoder)
    value = helper.make_tensor_value_info
    carried = [value("sound_turn", TensorProto.INT64, []), value("sound_more", TensorProto.BOOL, [])]
    states = [value(each.name, each.type.tensor_type.elem_type, None) for each in own[1:]]
    body = helper.make_graph([], "sound", [*carried, value("sound_made", _FLOAT, None), *states], [])
    within = Putting(body, "rigflow_sound", graph)
    begin = within("Mul", within("Reshape", "sound_turn", np.array([1], _INT64)), np.array([_DECODED], _INT64))
    end = within("Add", begin, np.array([_DECODED], _INT64))
    some = within("Slice", frames, begin, end, np.array([1], _INT64))
    _name(body, "Identity", some, own[0].name)
    body.node.extend(decoder.graph.node)
    new, *after = [each.name for each in decoder.graph.output]
    made = within("Concat", "sound_made", within("Reshape", new, np.array([1, 1, -1], _INT64)), axis=2)
    outputs = [within("Identity", "sound_more"), made, *after]
    body.output.extend(_untyped(outputs, [TensorProto.BOOL, _FLOAT, *_kinds(own[1:])]))
    count = put("Gather", put("Shape", frames), np.array(1, _INT64))
    turns = put("Div", put("Add", count, np.array(_DECODED - 1, _INT64)), np.array(_DECODED, _INT64))
    zeros = [_held(put, first_state(each, networks.unknown)) for each in own[1:]]
    sound, *_ = _loop(graph, put, turns, [put("Identity", np.zeros((1, 1, 0), np.float32)), *zeros], body, 0)
    return sound


def _carried(prefix: str, states: Sequence[Any]) -> list[Any]:
    """Return the inputs of the loop of frames: turn, whether to go on, last frame, condition, end, and states."""
    value = helper.make_tensor_value_info
    return [
        value(f"{prefix}_turn", TensorProto.INT64, []),
        value(f"{prefix}_more", TensorProto.BOOL, []),
        value(f"{prefix}_last", _FLOAT, None),
        value(f"{prefix}_condition", _FLOAT, None),
        value(f"{prefix}_end", TensorProto.INT64, []),
        *(value(each.name, kind, None) for each, kind in zip(states, _kinds(states), strict=True)),
    ]


def _kinds(tensors: Sequence[Any]) -> list[int]:
    return [each.type.tensor_type.elem_type for each in tensors]


def _untyped(names: Sequence[str], kinds: Sequence[int]) -> list[Any]:
    """Return outputs of a loop whose sizes may change from turn to turn."""
    return [helper.make_tensor_value_info(name, kind, None) for name, kind in zip(names, kinds, strict=True)]


def _loop(graph: Any, put: Putting, turns: str, given: Sequence[str], body: Any, gathered: int) -> list[str]:
    """Append a loop; return its last values, and those `gathered` of all turns."""
    go_on = put("Identity", np.array(True))
    names = [f"{body.name}_made_{number}" for number in range(len(given) + gathered)]
    graph.node.append(helper.make_node("Loop", [turns, go_on, *given], names, body=body))
    return names


def _number(put: Putting, name: str) -> str:
    return put("Cast", put("Reshape", name, np.zeros(0, _INT64)), to=int(_FLOAT))


def _name(graph: Any, kind: str, given: str, name: str, *more: str) -> None:
    graph.node.append(helper.make_node(kind, [given, *more], [name]))


def _held(put: Putting, array: Array) -> str:
    """Return a constant; zeros at the end of its longest axis, of places that are free, take no room in the file."""
    if array.size <= _SMALL:
        return put("Identity", array)
    sizes = list(array.shape)
    axis = sizes.index(max(sizes))
    used = np.flatnonzero(np.moveaxis(array, axis, 0).reshape(sizes[axis], -1).any(1))
    count = int(used[-1]) + 1 if len(used) else 0
    if count == sizes[axis]:
        return put("Identity", array)
    sizes[axis] -= count
    zero = numpy_helper.from_array(np.zeros(1, array.dtype))
    rest = put("ConstantOfShape", np.array(sizes, _INT64), value=zero)
    return put("Concat", np.take(array, np.arange(count), axis), rest, axis=axis) if count else rest
