"""Small models that speak, in the form in which Piper and Kokoro are published: tones whose pitch is a letter's."""

import json
from collections.abc import Sequence
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


def _write(
    path: Path, nodes: list, constants: dict, inputs: list, output: tuple, opset: int = 15, meta: dict | None = None
) -> None:
    write_network(path, nodes, constants, inputs, [output], opset, meta or {})


def write_network(
    path: Path, nodes: list, constants: dict, inputs: list, outputs: Sequence[tuple], opset: int, meta: dict
) -> None:
    """An ONNX file with the constants that its nodes use."""
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "tones",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    helper.set_model_props(model, {key: str(value) for key, value in meta.items()})
    path.write_bytes(model.SerializeToString())


BANDS, FFT, HOP = 8, 64, 16


def write_matcha(folder: Path, vocoder: str = "vocos-22khz-univ.onnx", marked: bool = False, **meta: object) -> Path:
    """A Matcha as sherpa-onnx publishes it: random weights, two frames a symbol; its tokens, and a vocoder of it."""
    rng = np.random.default_rng(0)
    path, node = folder / "model-steps-3.onnx", helper.make_node
    letters = ["_", "^", "$", *LETTERS]
    nodes = [
        node("Squeeze", ["x", "first"], ["ids"]),
        node("Cast", ["x_length"], ["count"], to=TensorProto.FLOAT),
        node("Mul", ["length_scale", "two"], ["per"]),
        node("Mul", ["count", "per"], ["long"]),
        node("Squeeze", ["long"], ["long_s"]),
        node("Range", ["zero_f", "long_s", "one_f"], ["time"]),
        node("Div", ["time", "per"], ["place"]),
        node("Cast", ["place"], ["place_i"], to=TensorProto.INT64),
        node("Gather", ["ids", "place_i"], ["now"]),
        node("Gather", ["table", "now"], ["frames"]),
        node("RandomNormalLike", ["frames"], ["random"], dtype=TensorProto.FLOAT),
        node("Mul", ["random", "noise_scale"], ["noise"]),
        node("Add", ["frames", "noise"], ["noisy"]),
        node("Transpose", ["noisy"], ["bands"], perm=[1, 0]),
        node("Unsqueeze", ["bands", "first"], ["mel"]),
    ]
    constants = {
        "first": np.array([0], np.int64),
        "two": np.array([2], np.float32),
        "zero_f": np.array(0, np.float32),
        "one_f": np.array(1, np.float32),
        "table": rng.standard_normal((len(letters), BANDS)).astype(np.float32),
    }
    inputs = [
        ("x", TensorProto.INT64, ["N", "L"]),
        ("x_length", TensorProto.INT64, ["N"]),
        ("noise_scale", TensorProto.FLOAT, [1]),
        ("length_scale", TensorProto.FLOAT, [1]),
    ]
    given = {"model_type": "matcha-tts", "voice": "en-us", "has_espeak": 1, "jieba": 0, "n_speakers": 1, "version": 1}
    given |= {"sample_rate": 22050, "pad_id": 0, "use_eos_bos": int(marked), "language": "English"}
    _write(path, nodes, constants, inputs, ("mel", ["N", BANDS, "L"]), 14, given | meta)
    lines = [f"{each} {number}\n" for number, each in enumerate(letters)]
    (folder / "tokens.txt").write_text("".join(lines), "utf-8")
    _write_vocoder(folder / vocoder, rng)
    return path


def _write_vocoder(path: Path, rng: np.random.Generator) -> None:
    node, mels = helper.make_node, [("mels", TensorProto.FLOAT, ["N", BANDS, "L"])]
    if path.name.startswith("hifigan"):
        nodes = [node("ConvTranspose", ["mels", "up"], ["audio"], strides=[HOP])]
        up = 0.1 * rng.standard_normal((BANDS, 1, HOP)).astype(np.float32)
        _write(path, nodes, {"up": up}, mels, ("audio", ["N", 1, "S"]), 13)
        return
    write_vocos(path, rng, BANDS, FFT, HOP, 22050)


def write_vocos(path: Path, rng: np.random.Generator, bands: int, fft: int, hop: int, rate: int) -> None:
    """A vocoder of Vocos with random weights."""
    node, mels = helper.make_node, [("mels", TensorProto.FLOAT, ["N", bands, "L"])]
    weights = {name: rng.standard_normal((fft // 2 + 1, bands, 1)).astype(np.float32) for name in ("wide", "turn")}
    nodes = [
        node("Conv", ["mels", "wide"], ["level"]),
        node("Abs", ["level"], ["mag"]),
        node("Conv", ["mels", "turn"], ["angle"]),
        node("Cos", ["angle"], ["x"]),
        node("Sin", ["angle"], ["y"]),
    ]
    outputs = [(name, ["N", fft // 2 + 1, "L"]) for name in ("mag", "x", "y")]
    meta = {"model_type": "vocos", "n_fft": fft, "hop_length": hop, "win_length": fft, "center": 1, "normalized": 0}
    meta |= {"window_type": "hann", "pad_mode": "reflect", "sample_rate": rate}
    write_network(path, nodes, weights, mels, outputs, 15, meta)
