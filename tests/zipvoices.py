"""A tiny ZipVoice as sherpa-onnx publishes it, with random weights; its vocoder; and a sound to clone."""

from pathlib import Path

import av
import numpy as np
from onnx import TensorProto, helper

from tests.voices import LETTERS, write_network, write_vocos

RATE, FFT, HOP, BANDS = 24000, 1024, 256, 100
WORDS = "hello there"
SYMBOLS = ["_", *LETTERS, *"ˈˌəɹɐɪʊɛɔːæʌŋθðʃʒɡɑɜɾ"]


def write_zipvoice(folder: Path, names: tuple[str, str] = ("encoder.onnx", "decoder.onnx"), **meta: object) -> Path:
    """The folder of one; the decoder takes all random numbers out in the first of 4 steps, so that the sound is fixed.

    `meta`: of both networks.
    """
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    _write_encoder(folder / names[0], rng, {"use_espeak": 0, **meta})
    _write_decoder(folder / names[1], rng, 4, dict(meta))
    lines = [f"{each} {number}\n" for number, each in enumerate(SYMBOLS)]
    (folder / "tokens.txt").write_text("".join(lines), "utf-8")
    write_vocos(folder / "vocos_24khz.onnx", rng, BANDS, FFT, HOP, RATE)
    return folder


def _write_encoder(path: Path, rng: np.random.Generator, meta: dict) -> None:
    """A row of a table for each symbol, repeated up to `prompt_features_len / P * (P + L) / speed` frames."""
    node = helper.make_node
    nodes = [
        node("Concat", ["prompt_tokens", "tokens"], ["both"], axis=1),
        node("Squeeze", ["both", "first"], ["ids"]),
        node("Size", ["prompt_tokens"], ["old_i"]),
        node("Size", ["both"], ["all_i"]),
        node("Cast", ["old_i"], ["old"], to=TensorProto.FLOAT),
        node("Cast", ["all_i"], ["all"], to=TensorProto.FLOAT),
        node("Cast", ["prompt_features_len"], ["frames"], to=TensorProto.FLOAT),
        node("Div", ["frames", "old"], ["each"]),
        node("Mul", ["each", "all"], ["normal"]),
        node("Div", ["normal", "speed"], ["long"]),
        node("Ceil", ["long"], ["whole"]),
        node("Range", ["zero", "whole", "one"], ["time"]),
        node("Mul", ["time", "all"], ["scaled"]),
        node("Div", ["scaled", "whole"], ["place"]),
        node("Cast", ["place"], ["place_i"], to=TensorProto.INT64),
        node("Gather", ["ids", "place_i"], ["now"]),
        node("Gather", ["table", "now"], ["rows"]),
        node("Unsqueeze", ["rows", "first"], ["text_condition"]),
    ]
    constants = {
        "first": np.array([0], np.int64),
        "zero": np.array(0, np.float32),
        "one": np.array(1, np.float32),
        "table": rng.standard_normal((len(SYMBOLS), BANDS)).astype(np.float32),
    }
    inputs = [
        ("tokens", TensorProto.INT64, ["N", "T"]),
        ("prompt_tokens", TensorProto.INT64, ["N", "P"]),
        ("prompt_features_len", TensorProto.INT64, []),
        ("speed", TensorProto.FLOAT, []),
    ]
    write_network(path, nodes, constants, inputs, [("text_condition", ["N", "T", BANDS])], 13, meta)


def _write_decoder(path: Path, rng: np.random.Generator, steps: int, meta: dict) -> None:
    """The tanh of a layer of all inputs; in the first of `steps` the random numbers are taken out of it and of x."""
    first = 0.5 / steps / (1 - 0.5 / steps)
    node = helper.make_node
    nodes = [
        node("Greater", ["t", "small"], ["later"]),
        node("Cast", ["later"], ["with_x"], to=TensorProto.FLOAT),
        node("Mul", ["x", "with_x"], ["seen"]),
        node("Concat", ["seen", "text_condition", "speech_condition"], ["joined"], axis=2),
        node("MatMul", ["joined", "weight"], ["layer"]),
        node("Add", ["t", "guidance_scale"], ["shift"]),
        node("Add", ["layer", "shift"], ["moved"]),
        node("Tanh", ["moved"], ["made"]),
        node("Sub", ["x", "seen"], ["unseen"]),
        node("Mul", ["unseen", "whole"], ["noise"]),
        node("Sub", ["made", "noise"], ["v"]),
    ]
    constants = {
        "small": np.array(1e-6, np.float32),
        "whole": np.array(1 / first, np.float32),
        "weight": 0.1 * rng.standard_normal((3 * BANDS, BANDS)).astype(np.float32),
    }
    wide = ["N", "T", BANDS]
    inputs = [
        ("t", TensorProto.FLOAT, []),
        *((name, TensorProto.FLOAT, wide) for name in ("x", "text_condition", "speech_condition")),
        ("guidance_scale", TensorProto.FLOAT, []),
    ]
    given = {"version": 1, "feat_dim": BANDS, "sample_rate": RATE, "n_fft": FFT, "hop_length": HOP}
    write_network(
        path, nodes, constants, inputs, [("v", wide)], 13, given | {"window_length": FFT, "num_mels": BANDS} | meta
    )


def reference(seconds: float = 1.5, rate: int = RATE, level: float = 0.03) -> np.ndarray:
    """Noise under rising tones, float32, at a level below that to which voices are raised; no silence at its ends."""
    count = round(seconds * rate) // HOP * HOP + HOP // 2 + 10
    time = np.arange(count) / rate
    tones = np.sin(2 * np.pi * (150 + 300 * time) * time)
    return (level * (tones + 0.3 * np.random.default_rng(1).standard_normal(count))).astype(np.float32)


def write_wav(path: Path, sound: np.ndarray, rate: int = RATE) -> Path:
    """A file of floats."""
    with av.open(str(path), "w", format="wav") as container:
        stream = container.add_stream("pcm_f32le", rate=rate, layout="mono")
        container.start_encoding()
        if len(sound):
            frame = av.AudioFrame.from_ndarray(sound.astype(np.float32)[None], format="flt", layout="mono")
            frame.rate = rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
