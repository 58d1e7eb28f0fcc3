"""Small random networks in the forms of FunASR and sherpa-onnx: Paraformer, plain and with times, and SenseVoice."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

from engines.models.catalogue import models_folder, save_model
from engines.models.proposal import propose
from engines.models.store import find, new_files

Array = np.ndarray[Any, Any]
RATE = 16_000
WIDTH, INNER = 560, 24
CHINESE = "欢迎使用语音识别今天气很好我们去看海山水人大小多少来上下左右前后"
BPE = [
    "<blank>", "<s>", "</s>", *CHINESE, "hello", "wor@@", "ld", "and@@", "ro@@", "id", "speech", "yes", "no@@", "thing",
    "<unk>",
]  # fmt: skip
LANGUAGES = {0: "ja", 3: "zh", 4: "en", 7: "yue", 11: "ja", 12: "ko"}  # what the network says for each query
NORMS = {14: "withitn", 15: "woitn"}
TAGS = ["zh", "en", "yue", "ja", "ko", "nospeech", "HAPPY", "NEUTRAL", "Speech", "BGM", "withitn", "woitn"]
PIECES = ["<unk>", "<s>", "</s>", *CHINESE, "▁hello", "▁wor", "ld", "▁the", "ing", "，", "。", "▁안", "녕", "は", "い"]
VOICE = [*PIECES, *(f"<|{tag}|>" for tag in TAGS)]


# without a stage `speech`, whose network is not here
PIPELINE = """
name = "dictate"
media = ["audio"]
segment_s = 6.0
[[stage]]
kind = "decode"
rate = 16000
window_s = 3.0
[[stage]]
kind = "transcribe"
model = "paraformer-zh"
[[stage]]
kind = "encode"
format = "transcript"
options = { files = ["srt", "json", "txt"] }
"""


def add_listeners(folder: Path) -> None:
    """Add a `paraformer-zh` and a `SenseVoiceSmall` to the user's models."""
    for name, write in (("paraformer-zh", write_paraformer), ("SenseVoiceSmall", write_sensevoice)):
        write(folder / name)
        with new_files() as new:
            found = find(folder / name, new)
            save_model(models_folder(), propose(found.path, found.content, found.name).card(), found.content)


class Net:
    """Collects the nodes of a graph; a constant is an array."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def put(self, kind: str, *inputs: str | Array, result: str = "", **attributes: Any) -> str:
        names = [each if isinstance(each, str) else self.constant(each) for each in inputs]
        result = result or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [result], **attributes))
        return result

    def constant(self, array: Array) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weights(self, *shape: int, scale: float = 1.0) -> Array:
        return (self.random.normal(0, scale, shape)).astype(np.float32)

    def states(self, features: str) -> str:
        return self.put("Tanh", self.put("MatMul", features, self.weights(WIDTH, INNER, scale=0.02)))

    def write(self, path: Path, inputs: list[Any], outputs: list[Any], metadata: dict[str, Any]) -> None:
        graph = helper.make_graph(self.nodes, "listener", inputs, outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        helper.set_model_props(model, {name: str(value) for name, value in metadata.items()})
        save(model, str(path))


def write_paraformer(folder: Path, times: bool = True, sherpa: bool = False, seed: int = 1, eos: bool = True) -> Path:
    """A Paraformer: tokens by continuous integrate-and-fire of its states; `eos`: it ends as real ones do."""
    folder.mkdir(parents=True, exist_ok=True)
    net = Net(seed)
    states = net.states("speech")
    alphas = net.put("Sigmoid", net.put("Sub", net.put("MatMul", states, net.weights(INNER, 1)), f32(1.0)))
    flat = net.put("Squeeze", alphas, i64(2))
    sums = net.put("CumSum", flat, np.array(1, np.int64))
    total = net.put("ReduceSum", flat, i64(1), keepdims=0)
    rounded = net.put("Max", net.put("Round", total), f32([1.0]))
    net.put("Cast", rounded, result="token_num", to=TensorProto.INT32)
    places = net.put("Range", f32(0.0), net.put("Squeeze", rounded, i64(0)), f32(1.0))
    low = net.put("Unsqueeze", places, i64(0, 2))
    after, before = (net.put("Unsqueeze", each, i64(1)) for each in (sums, net.put("Sub", sums, flat)))
    end = net.put("Min", after, net.put("Add", low, f32(1.0)))
    shares = net.put("Relu", net.put("Sub", end, net.put("Max", before, low)))
    pooled = net.put("MatMul", shares, states)
    scores = net.put("MatMul", pooled, net.weights(INNER, len(BPE), scale=3.0))
    unwanted = np.zeros(len(BPE), np.float32)
    unwanted[:3] = -1e3
    scores = net.put("Add", scores, unwanted)
    if eos:
        last = net.put("Equal", low, net.put("Sub", net.put("Unsqueeze", rounded, i64(1, 2)), f32(1.0)))
        mark = np.zeros(len(BPE), np.float32)
        mark[2] = 3e3
        scores = net.put("Add", scores, net.put("Mul", net.put("Cast", last, to=TensorProto.FLOAT), mark))
    net.put("LogSoftmax", scores, result="logits", axis=2)
    outputs = [
        value("logits", ["batch_size", "logits_length", len(BPE)]),
        value("token_num", ["batch_size"], whole=True),
    ]
    if times:
        _fires(net, flat, total, rounded)
        outputs += [value(name, ["batch_size", "alphas_length"]) for name in ("us_alphas", "us_cif_peak")]
    inputs = [
        value("speech", ["batch_size", "feats_length", WIDTH]),
        value("speech_lengths", ["batch_size"], whole=True),
    ]
    net.nodes.append(helper.make_node("Identity", ["speech_lengths"], ["lengths_read"]))
    return _publish(net, folder, inputs, outputs, BPE, sherpa, {"model_type": "paraformer"}, "predictor_bias: 1")


def _fires(net: Net, flat: str, total: str, rounded: str) -> None:
    """`us_alphas` sum to a little more than the number of tokens; `us_cif_peak` is at least 1 where one is complete."""
    share = net.put("Div", net.put("Add", rounded, f32(1e-3)), net.put("Mul", total, f32(3.0)))
    thrice = net.put("Concat", *[net.put("Unsqueeze", flat, i64(2))] * 3, axis=2)
    upsampled = net.put("Reshape", thrice, i64(0, -1))
    net.put("Mul", upsampled, share, result="us_alphas")
    sums = net.put("CumSum", "us_alphas", np.array(1, np.int64))
    net.put("Sub", sums, net.put("Floor", net.put("Sub", sums, "us_alphas")), result="us_cif_peak")


def write_sensevoice(folder: Path, sherpa: bool = False, seed: int = 2) -> Path:
    """A SenseVoice: four tags that its queries name, and then a token or a blank a row."""
    folder.mkdir(parents=True, exist_ok=True)
    net = Net(seed)
    speech, lengths, norm = ("x", "x_length", "text_norm") if sherpa else ("speech", "speech_lengths", "textnorm")
    table = np.full((16, len(VOICE)), -50, np.float32)
    said = {**LANGUAGES, 1: "HAPPY", 2: "Speech", **NORMS}
    for query, tag in said.items():
        table[query, VOICE.index(f"<|{tag}|>")] = 5.0
    language, norms = (net.put("Unsqueeze", each, i64(1)) for each in ("language", norm))
    middle = net.put("Expand", np.array([[1, 2]], np.int32), np.array([1, 2], np.int64))
    tags = net.put("Gather", table, net.put("Concat", language, middle, norms, axis=1))
    scores = net.put("MatMul", net.states(speech), net.weights(INNER, len(VOICE), scale=2.0))
    bias = np.zeros(len(VOICE), np.float32)
    bias[0] = 9.0
    bias[1:3] = bias[len(PIECES) :] = -1e3
    logits = "logits" if sherpa else "ctc_logits"
    net.put("Concat", tags, net.put("Add", scores, bias), result=logits, axis=1)
    outputs = [value(logits, ["batch_size", "logits_length", len(VOICE)])]
    if not sherpa:
        net.put("Add", lengths, np.array(4, np.int32), result="encoder_out_lens")
        outputs.append(value("encoder_out_lens", ["batch_size"], whole=True))
    else:
        net.put("Identity", lengths, result="lengths_read")
    inputs = [value(speech, ["batch_size", "feats_length", WIDTH])]
    inputs += [value(each, ["batch_size"], whole=True) for each in (lengths, "language", norm)]
    more = {"model_type": "sense_voice_ctc", "normalize_samples": 0, "with_itn": 14, "without_itn": 15, "comment": "x"}
    more |= {f"lang_{code}": row for row, code in {0: "auto", 3: "zh", 4: "en", 7: "yue", 11: "ja", 12: "ko"}.items()}
    return _publish(net, folder, inputs, outputs, VOICE, sherpa, more, "length_normalized_loss: true")


def _publish(
    net: Net, folder: Path, inputs: list[Any], outputs: list[Any], tokens: list[str], sherpa: bool,
    metadata: dict[str, Any], model_conf: str,
) -> Path:  # fmt: skip
    """The files of a folder as FunASR has them, or as sherpa-onnx has."""
    shift, scale = net.random.normal(-8, 1, WIDTH).round(4), net.random.uniform(0.1, 0.3, WIDTH).round(4)
    rows = [" ".join(map(str, each.tolist())) for each in (shift, scale)]
    path = folder / "model.onnx"
    if sherpa:
        metadata |= {"vocab_size": len(tokens), "lfr_window_size": 7, "lfr_window_shift": 6}
        metadata |= {"neg_mean": rows[0].replace(" ", ","), "inv_stddev": rows[1].replace(" ", ",")}
        net.write(path, inputs, outputs, metadata)
        (folder / "tokens.txt").write_text("".join(f"{each} {number}\n" for number, each in enumerate(tokens)))
        return path
    net.write(path, inputs, outputs, {})
    (folder / "tokens.json").write_text(json.dumps(tokens, ensure_ascii=False))
    (folder / "am.mvn").write_text(
        f"<Nnet>\n<Splice> {WIDTH} {WIDTH}\n[ 0 ]\n<AddShift> {WIDTH} {WIDTH}\n<LearnRateCoef> 0 [ {rows[0]} ]\n"
        f"<Rescale> {WIDTH} {WIDTH}\n<LearnRateCoef> 0 [ {rows[1]} ]\n</Nnet>\n"
    )
    (folder / "config.yaml").write_text(
        f"model: Listener\nmodel_conf:\n    {model_conf}\nfrontend: WavFrontend\nfrontend_conf:\n    fs: 16000\n"
        "    window: hamming\n    n_mels: 80\n    frame_length: 25\n    frame_shift: 10\n    lfr_m: 7\n    lfr_n: 6\n"
    )
    return path


def f32(given: Any) -> Array:
    return np.array(given, np.float32)


def i64(*given: int) -> Array:
    return np.array(given, np.int64)


def value(name: str, shape: list[Any], whole: bool = False) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.INT32 if whole else TensorProto.FLOAT, shape)


def sound(seconds: float, seed: int = 0) -> Array:
    """Tones that change each 0.1 s, with pauses; float32 at 16 kHz."""
    random, step = np.random.default_rng(seed), 1600
    parts = []
    for _ in range(round(seconds * 10)):
        time = np.arange(step) / 16000
        tones = sum(np.sin(2 * np.pi * random.uniform(100, 4000) * time) for _ in range(3))
        parts.append(tones * random.choice([0.0, 0.02, 0.1, 0.2]))
    return np.concatenate(parts).astype(np.float32)
