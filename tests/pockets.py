"""A tiny Pocket TTS as sherpa-onnx publishes it, with random weights; and what its networks make one by one."""

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from tests.voices import write_network

RATE, FRAME, LATENT, WIDTH = 24000, 1920, 32, 1024
STEPS = 2  # in the first of so many the flow takes the random numbers out, so that the sound is fixed
CACHE, HEAD = 400, 16
SPACE = "\u2581"
PIECES = (
    *("<unk>", "<s>", "</s>"),
    *(f"<0x{byte:02X}>" for byte in range(256)),
    *(SPACE, "e", "t", "a", "o", "i", "n", "s", "h", "r", "d", "l", "u", ".", ",", "w", "W", "g", "G", "y", "H"),
    *(
        f"{SPACE}the",
        f"{SPACE}day",
        "good",
        f"{SPACE}Good",
        "he",
        "el",
        "lo",
        "hel",
        "ll",
        f"{SPACE}w",
        "or",
        "ld",
        "orl",
    ),
)
SCORES = {piece: -10.0 - n / 7 if piece.startswith("<") else -1.0 * (1 + n % 5) for n, piece in enumerate(PIECES)}
node = helper.make_node


def write_pocket(folder: Path, end: int = 30, form: str = ".onnx") -> Path:
    """The folder of one; a text ends when `end` pieces and frames have been read after the first 12."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(3)
    _write_encoder(folder / "encoder.onnx", rng)
    _write_text(folder / "text_conditioner.onnx", rng)
    _write_main(folder / f"lm_main{form}", rng, end)
    _write_flow(folder / f"lm_flow{form}", rng)
    _write_decoder(folder / f"decoder{form}", rng)
    (folder / "vocab.json").write_text(json.dumps({piece: n for n, piece in enumerate(PIECES)}))
    (folder / "token_scores.json").write_text(json.dumps(SCORES))
    return folder


def _write_encoder(path: Path, rng: np.random.Generator) -> None:
    nodes = [
        node("Conv", ["audio", "frames"], ["bands"], strides=[FRAME]),
        node("Transpose", ["bands"], ["turned"], perm=[0, 2, 1]),
        node("MatMul", ["turned", "wide"], ["latents"]),
    ]
    constants = {"frames": _random(rng, 8, 1, FRAME, scale=0.1), "wide": _random(rng, 8, WIDTH)}
    audio = [("audio", TensorProto.FLOAT, [1, 1, "S"])]
    write_network(path, nodes, constants, audio, [("latents", [1, "T", WIDTH])], 17, {})


def _write_text(path: Path, rng: np.random.Generator) -> None:
    nodes = [node("Gather", ["table", "token_ids"], ["embeddings"])]
    constants = {"table": _random(rng, len(PIECES), WIDTH)}
    ids = [("token_ids", TensorProto.INT64, [1, "L"])]
    write_network(path, nodes, constants, ids, [("embeddings", [1, "L", WIDTH])], 17, {})


def _write_main(path: Path, rng: np.random.Generator, end: int) -> None:
    """One head of attention over a cache of the places that were read; `bos` stands for a frame that is no number."""
    nodes = [
        node("IsNaN", ["sequence"], ["none"]),
        node("Where", ["none", "bos", "sequence"], ["frames"]),
        node("MatMul", ["frames", "in"], ["of_frames"]),
        node("Concat", ["text_embeddings", "of_frames"], ["read"], axis=1),
        node("MatMul", ["read", "narrow"], ["keys"]),
        node("Shape", ["keys"], ["shape"]),
        node("Gather", ["shape", "one"], ["count"]),
        node("Add", ["state_1", "count"], ["after"]),
        node("Slice", ["state_0", "zero", "state_1", "one"], ["before"]),
        node("Slice", ["state_0", "after", "far", "one"], ["behind"]),
        node("Concat", ["before", "keys", "behind"], ["out_state_0"], axis=1),
        node("Slice", ["keys", "last", "far", "one"], ["query"]),
        node("Transpose", ["out_state_0"], ["turned"], perm=[0, 2, 1]),
        node("MatMul", ["query", "turned"], ["scores"]),
        node("Less", ["places", "after"], ["known"]),
        node("Where", ["known", "scores", "low"], ["masked"]),
        node("Softmax", ["masked"], ["shares"], axis=-1),
        node("MatMul", ["shares", "out_state_0"], ["seen"]),
        node("MatMul", ["seen", "out"], ["wide"]),
        node("Tanh", ["wide"], ["bounded"]),
        node("Squeeze", ["bounded", "one"], ["conditioning"]),
        node("Cast", ["after"], ["after_f"], to=TensorProto.FLOAT),
        node("Sub", ["after_f", "end"], ["over"]),
        node("Unsqueeze", ["over", "zero"], ["eos_logit"]),
        node("Identity", ["after"], ["out_state_1"]),
    ]
    constants = {
        "bos": _random(rng, LATENT),
        "in": _random(rng, LATENT, WIDTH, scale=0.1),
        "narrow": _random(rng, WIDTH, HEAD, scale=0.05),
        "out": _random(rng, HEAD, WIDTH, scale=0.1),
        "end": np.array([12 + end + 4.5], np.float32),
        "low": np.array(-1e9, np.float32),
        "places": np.arange(CACHE)[None, None],
        **{
            name: np.array([value], np.int64)
            for name, value in {"zero": 0, "one": 1, "last": -1, "far": 1 << 40}.items()
        },
    }
    inputs = [
        ("sequence", TensorProto.FLOAT, [1, "S", LATENT]),
        ("text_embeddings", TensorProto.FLOAT, [1, "T", WIDTH]),
        ("state_0", TensorProto.FLOAT, [1, CACHE, HEAD]),
        ("state_1", TensorProto.INT64, [1]),
    ]
    outputs = [
        ("conditioning", [1, WIDTH]),
        ("eos_logit", [1, 1]),
        ("out_state_0", [1, CACHE, HEAD]),
        ("out_state_1", [1]),
    ]
    _write_stated(path, nodes, constants, inputs, outputs, {"out_state_1": TensorProto.INT64})


def _write_flow(path: Path, rng: np.random.Generator) -> None:
    nodes = [
        node("MatMul", ["c", "of_c"], ["a"]),
        node("MatMul", ["x", "of_x"], ["b"]),
        node("Less", ["s", "small"], ["first"]),
        node("Cast", ["first"], ["first_f"], to=TensorProto.FLOAT),
        node("Sub", ["one", "first_f"], ["later"]),
        node("Mul", ["b", "later"], ["seen"]),
        node("Sum", ["a", "seen", "s", "t"], ["sum"]),
        node("Tanh", ["sum"], ["made"]),
        node("Mul", ["x", "first_f"], ["noise"]),
        node("Mul", ["noise", "steps"], ["away"]),
        node("Sub", ["made", "away"], ["v"]),
    ]
    constants = {
        "of_c": _random(rng, WIDTH, LATENT, scale=0.1),
        "of_x": _random(rng, LATENT, LATENT),
        "small": np.array(1e-6, np.float32),
        "one": np.array(1, np.float32),
        "steps": np.array(STEPS, np.float32),
    }
    sizes = {"c": WIDTH, "s": 1, "t": 1, "x": LATENT}
    inputs = [(name, TensorProto.FLOAT, ["N", size]) for name, size in sizes.items()]
    write_network(path, nodes, constants, inputs, [("v", ["N", LATENT])], 17, {})


def _write_decoder(path: Path, rng: np.random.Generator) -> None:
    """Sound of each frame and a share of the one before; the first frames of all are not so loud."""
    nodes = [
        node("Slice", ["latent", "zero", "last", "one"], ["some"]),
        node("Concat", ["state_0", "some"], ["shifted"], axis=1),
        node("Mul", ["shifted", "half"], ["less"]),
        node("Add", ["latent", "less"], ["both"]),
        node("MatMul", ["both", "sounds"], ["rows"]),
        node("Where", ["state_1", "full", "half"], ["level"]),
        node("Mul", ["rows", "level"], ["loud"]),
        node("Reshape", ["loud", "flat"], ["audio_frame"]),
        node("Slice", ["latent", "last", "far", "one"], ["out_state_0"]),
        node("Not", ["state_1"], ["other"]),
        node("Or", ["state_1", "other"], ["out_state_1"]),
    ]
    constants = {
        "sounds": _random(rng, LATENT, FRAME, scale=0.05),
        "half": np.array(0.5, np.float32),
        "full": np.array(1, np.float32),
        "flat": np.array([1, 1, -1], np.int64),
        **{
            name: np.array([value], np.int64)
            for name, value in {"zero": 0, "one": 1, "last": -1, "far": 1 << 40}.items()
        },
    }
    inputs = [
        ("latent", TensorProto.FLOAT, [1, "N", LATENT]),
        ("state_0", TensorProto.FLOAT, [1, 1, LATENT]),
        ("state_1", TensorProto.BOOL, [1]),
    ]
    outputs = [("audio_frame", [1, 1, "S"]), ("out_state_0", [1, 1, LATENT]), ("out_state_1", [1])]
    _write_stated(path, nodes, constants, inputs, outputs, {"out_state_1": TensorProto.BOOL})


def _write_stated(path: Path, nodes: list, constants: dict, inputs: list, outputs: list, kinds: dict) -> None:
    """A network whose outputs are not all floats."""
    import onnx

    write_network(path, nodes, constants, inputs, outputs, 17, {})
    model = onnx.load(path)
    for output in model.graph.output:
        output.type.tensor_type.elem_type = kinds.get(output.name, TensorProto.FLOAT)
    path.write_bytes(model.SerializeToString())


def _random(rng: np.random.Generator, *shape: int, scale: float = 0.3) -> np.ndarray:
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def five_sessions(
    folder: Path, sound: np.ndarray, numbers: list[int], after: int, most: int, steps: int = STEPS
) -> np.ndarray:
    """What the published networks make of the pieces of a text, run one by one from Python."""
    names = ("encoder", "text_conditioner", "lm_main", "lm_flow", "decoder")
    encoder, text, main, flow, decoder = (
        ort.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"]) for name in names
    )
    state = [np.zeros((1, CACHE, HEAD), np.float32), np.zeros(1, np.int64)]
    nothing, no_text = np.zeros((1, 0, LATENT), np.float32), np.zeros((1, 0, WIDTH), np.float32)

    def read(frame: np.ndarray, words: np.ndarray) -> list[np.ndarray]:
        fed = {"sequence": frame, "text_embeddings": words, "state_0": state[0], "state_1": state[1]}
        condition, logit, *state[:] = main.run(None, fed)
        return [condition, logit]

    read(nothing, encoder.run(None, {"audio": sound[None, None]})[0])
    read(nothing, text.run(None, {"token_ids": np.array([numbers])})[0])
    frames, ended, frame = [], None, np.full((1, 1, LATENT), np.nan, np.float32)
    for number in range(most):
        condition, logit = read(frame, no_text)
        if ended is None and logit[0, 0] > -4:
            ended = number
        if ended is not None and number >= ended + after:
            break
        x = np.random.default_rng(number).standard_normal((1, LATENT)).astype(np.float32)
        for step in range(steps):
            times = {
                name: np.full((1, 1), step / steps + more, np.float32) for name, more in (("s", 0), ("t", 1 / steps))
            }
            x = x + flow.run(None, {"c": condition, "x": x, **times})[0] / np.float32(steps)
        frame = x[None]
        frames.append(frame)
    first, made = [np.zeros((1, 1, LATENT), np.float32), np.zeros(1, bool)], []
    whole = np.concatenate(frames, axis=1)
    for begin in range(0, whole.shape[1], 15):
        fed = {"latent": whole[:, begin : begin + 15], "state_0": first[0], "state_1": first[1]}
        sounded, *first = decoder.run(None, fed)
        made.append(sounded[0, 0])
    return np.concatenate(made)
