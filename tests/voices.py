"""Small models that speak, in the form in which Piper and Kokoro are published: tones whose pitch is a letter's."""

import json
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 .,!?'-äöüß"
RATE = 16000
STEP = 160  # samples of a symbol at speed 1


def write_piper(folder: Path, name: str = "tones", kind: str = "text", speakers: int = 1) -> Path:
    """A VITS as Piper exports it, two random nodes included, and its json; `kind`: its phoneme_type."""
    path = folder / f"{name}.onnx"
    nodes, constants = _tones("input", "scales")
    inputs = [
        ("input", TensorProto.INT64, ["batch_size", "phonemes"]),
        ("input_lengths", TensorProto.INT64, ["batch_size"]),
        ("scales", TensorProto.FLOAT, [3]),
    ]
    if speakers > 1:
        inputs.append(("sid", TensorProto.INT64, ["batch_size"]))
        nodes += [
            helper.make_node("Cast", ["sid"], ["sid_f"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["sid_f", "one"], ["louder"]),
            helper.make_node("Div", ["wave", "louder"], ["voiced"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["wave"], ["voiced"]))
    nodes.append(helper.make_node("Reshape", ["voiced", "shape"], ["output"]))
    constants["shape"] = np.array([1, 1, 1, -1], np.int64)
    _write(path, nodes, constants, inputs, ("output", ["batch_size", "time", 1, "samples"]))
    settings = {
        "audio": {"sample_rate": RATE, "quality": "low"},
        "espeak": {"voice": "en-us"},
        "inference": {"noise_scale": 0.5, "length_scale": 1.25, "noise_w": 0.25},
        "phoneme_type": kind,
        "num_symbols": 256,
        "num_speakers": speakers,
        "speaker_id_map": {f"s{n}": n for n in range(speakers)} if speakers > 1 else {},
        "phoneme_id_map": {"_": [0], "^": [1], "$": [2], **{each: [3 + n] for n, each in enumerate(LETTERS)}},
    }
    path.with_name(f"{path.name}.json").write_text(json.dumps(settings))
    return path


def write_kokoro(folder: Path, tokens: str = "tokens", dtype: int = TensorProto.FLOAT) -> Path:
    """A model with Kokoro's inputs, its voices and its symbols; the sound's level is the first number of the style."""
    path = folder / "kokoro-v1.0.onnx"
    nodes, constants = _tones(tokens, "")
    nodes = [
        helper.make_node("Cast", ["speed"], ["speed_f"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["one", "speed_f"], ["slow"]),
        *nodes,
        helper.make_node("Gather", ["style", "zero"], ["level"], axis=1),
        helper.make_node("Mul", ["wave", "level"], ["level_wave"]),
        helper.make_node("Reshape", ["level_wave", "shape"], ["audio"]),
    ]
    constants["shape"] = np.array([-1], np.int64)
    inputs = [
        (tokens, TensorProto.INT64, [1, "sequence_length"]),
        ("style", TensorProto.FLOAT, [1, 256]),
        ("speed", dtype, [1]),
    ]
    _write(path, nodes, constants, inputs, ("audio", ["audio_length"]))
    (folder / "config.json").write_text(json.dumps({"vocab": {each: n + 1 for n, each in enumerate(LETTERS + "ˈˌəɹ")}}))
    with (folder / "voices-v1.0.bin").open("wb") as file:
        np.savez(file, af_low=_voice(0.25), am_high=_voice(0.75), bf_mid=_voice(0.5))
    return path


def _voice(level: float) -> np.ndarray:
    """510 rows: a row is `level` plus a thousandth of its number."""
    rows = np.full((510, 1, 256), level, np.float32)
    return rows + (np.arange(510, dtype=np.float32) / 1000)[:, None, None]


def _tones(symbols: str, scales: str) -> tuple[list, dict]:
    """Nodes that make `wave [n]` of symbols, for `scales [3]` or for `slow [1]`."""
    node = helper.make_node
    nodes = [node("Reshape", [symbols, "flat"], ["ids"]), node("Size", [symbols], ["count"])]
    if scales:
        nodes += [node("Gather", [scales, f"at{n}"], [name]) for n, name in enumerate(("loud", "slow", "wide"))]
    nodes += [
        node("Mul", ["slow", "step"], ["per"]),
        node("Cast", ["count"], ["count_f"], to=TensorProto.FLOAT),
        node("Mul", ["count_f", "per"], ["long"]),
        node("Squeeze", ["long"], ["long_s"]),
        node("Range", ["zero_f", "long_s", "one_f"], ["time"]),
        node("Div", ["time", "per"], ["place"]),
        node("Cast", ["place"], ["place_i"], to=TensorProto.INT64),
        node("Gather", ["ids", "place_i"], ["now"]),
        node("Cast", ["now"], ["now_f"], to=TensorProto.FLOAT),
        node("Mul", ["now_f", "pitch"], ["hertz"]),
        node("Mul", ["hertz", "time"], ["angle"]),
        node("Sin", ["angle"], ["tone"]),
        node("Mul", ["tone", "third"], ["wave0"]),
    ]
    if scales:
        nodes += [
            node("RandomNormalLike", ["wave0"], ["random0"], dtype=TensorProto.FLOAT),
            node("Mul", ["random0", "loud"], ["noise0"]),
            node("RandomNormalLike", ["wave0"], ["random1"]),
            node("Mul", ["random1", "wide"], ["noise1"]),
            node("Add", ["noise0", "noise1"], ["noise_sum"]),
            node("Mul", ["noise_sum", "tenth"], ["noise_small"]),
            node("Add", ["wave0", "noise_small"], ["wave"]),
        ]
    else:
        nodes.append(node("Identity", ["wave0"], ["wave"]))
    constants = {
        "flat": np.array([-1], np.int64),
        "zero": np.array([0], np.int64),
        "zero_f": np.array(0, np.float32),
        "one_f": np.array(1, np.float32),
        "one": np.ones(1, np.float32),
        "step": np.array([STEP], np.float32),
        "pitch": np.array([0.01], np.float32),
        "third": np.array([0.3], np.float32),
        "tenth": np.array([0.1], np.float32),
        **{f"at{n}": np.array([n], np.int64) for n in range(3)},
    }
    return nodes, constants


def _write(path: Path, nodes: list, constants: dict, inputs: list, output: tuple) -> None:
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "tones",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])],
        [numpy_helper.from_array(array, name) for name, array in constants.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    path.write_bytes(model.SerializeToString())
