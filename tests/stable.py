"""Tiny Stable Diffusions of random weights, as folders of ONNX files with the names that optimum writes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.clip_tokens import END, START, clip_tokenizer, vocabulary

MERGES = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>"), ("r", "e"), ("re", "d</w>")]
WIDTH, SMALLER, CHANNELS = 8, 8, 4
_OPSET = 17
SCHEDULE = {
    "_class_name": "PNDMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "clip_sample": False,
}


class Builder:
    """A graph, node by node, with weights of a seed."""

    def __init__(self, seed: int, dtype: type[np.generic] = np.float32) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtype = dtype
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, *shape: int, scale: float = 0.5) -> str:
        return self.constant((self.rng.standard_normal(shape) * scale).astype(self.dtype))

    def constant(self, array: Any) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        output = output or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def norm(self, states: str, output: str = "") -> str:
        return self.node("LayerNormalization", [states, self.weight(WIDTH), self.weight(WIDTH)], output)

    def model(self, inputs: dict[str, Any], outputs: dict[str, Any]) -> onnx.ModelProto:
        infos = [
            [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in each.items()]
            for each in (inputs, outputs)
        ]
        graph = helper.make_graph(self.nodes, "tiny", *infos, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)


def text_encoder(
    seed: int = 1, layers: int = 0, embeds: bool = False, ids: int = TensorProto.INT32, blocks: int = 0
) -> onnx.ModelProto:
    """Embeddings and places; with `layers` as many hidden states; `embeds`: a vector of the whole text.

    `blocks`: as many layers that add to the states twice each, and a norm behind them, as CLIP has.
    """
    made, float_ = Builder(seed), TensorProto.FLOAT
    words = made.node("Gather", [made.weight(len(vocabulary(MERGES)), WIDTH), "input_ids"])
    states = made.node("Add", [words, made.weight(77, WIDTH)])
    outputs: dict[str, Any] = {"last_hidden_state": (float_, ["B", 77, WIDTH])}
    for layer in range(layers):
        name = f"hidden_states.{layer}"
        states = made.node("Tanh", [made.node("MatMul", [states, made.weight(WIDTH, WIDTH)])], name)
        outputs[name] = (float_, ["B", 77, WIDTH])
    mean = made.node("ReduceMean", [states], axes=[1], keepdims=0)
    made.node("MatMul", [mean, made.weight(WIDTH, WIDTH)], "text_embeds" if embeds else "pooler_output")
    outputs["text_embeds" if embeds else "pooler_output"] = (float_, ["B", WIDTH])
    for _ in range(2 * blocks):
        other = made.node("MatMul", [made.norm(states), made.weight(WIDTH, WIDTH, scale=1.0)])
        states = made.node("Add", [states, made.node("Tanh", [other])])
    if blocks:
        made.norm(states, "last_hidden_state")
    else:
        made.node("Tanh", [states], "last_hidden_state")
    return made.model({"input_ids": (ids, ["B", 77])}, outputs)


def unet(
    seed: int = 2,
    xl: bool = False,
    half: bool = False,
    batch: int | str = "B",
    side: int | str = "H",
    timestep: Sequence[int | str] = ("steps",),
    inside: bool = False,
    factor: float = 1.0,
) -> onnx.ModelProto:
    """A convolution of the latents, and shifts by the text and the timestep. `inside`: it takes the guidance."""
    kind, dtype = (TensorProto.FLOAT16, np.float16) if half else (TensorProto.FLOAT, np.float32)
    made = Builder(seed, dtype)
    width = 2 * WIDTH if xl else WIDTH
    seen = made.node("Conv", ["sample", made.weight(CHANNELS, CHANNELS, 3, 3, scale=0.2)], pads=[1, 1, 1, 1])
    last = made.node("Slice", ["encoder_hidden_states", *(made.constant([n]) for n in (0, 12, 1))])
    told = made.node("MatMul", [made.node("ReduceMean", [last], axes=[1], keepdims=0), made.weight(width, CHANNELS)])
    inputs: dict[str, Any] = {
        "sample": (kind, [batch, CHANNELS, side, "W" if side == "H" else side]),
        "timestep": (TensorProto.INT64 if not half else kind, list(timestep)),
        "encoder_hidden_states": (kind, [batch, 77, width]),
    }
    if xl:
        inputs |= {"text_embeds": (kind, [batch, WIDTH]), "time_ids": (kind, [batch, 6])}
        told = made.node("Add", [told, made.node("MatMul", ["text_embeds", made.weight(WIDTH, CHANNELS)])])
        told = made.node("Add", [told, made.node("MatMul", ["time_ids", made.weight(6, CHANNELS, scale=0.01)])])
    if inside:
        inputs["timestep_cond"] = (kind, [batch, 6])
        told = made.node("Add", [told, made.node("MatMul", ["timestep_cond", made.weight(6, CHANNELS)])])
    time = made.node("Reshape", ["timestep", made.constant(np.array([-1, 1, 1, 1]))])
    time = made.node("Cast", [time], to=kind)
    time = made.node("Mul", [time, made.constant(np.array(0.001, dtype))])
    told = made.node("Reshape", [told, made.constant(np.array([-1, CHANNELS, 1, 1]))])
    summed = made.node("Add", [made.node("Add", [seen, told]), time])
    out = made.node("Tanh", [summed])
    made.node("Mul", [out, made.constant(np.array(factor, dtype))], "out_sample")
    return made.model(inputs, {"out_sample": (kind, [batch, CHANNELS, "H", "W"])})


def decoder(seed: int = 3, broken: bool = False) -> onnx.ModelProto:
    """A picture 8 times as large as its latents; `broken`: of NaN."""
    made, float_ = Builder(seed), TensorProto.FLOAT
    kernel = made.weight(CHANNELS, 3, SMALLER, SMALLER, scale=0.02)
    found = made.node("ConvTranspose", ["latent_sample", kernel], strides=[SMALLER, SMALLER])
    found = made.node("Tanh", [found])
    made.node("Mul", [found, made.constant(np.array(np.nan if broken else 1.0, np.float32))], "sample")
    return made.model({"latent_sample": (float_, ["B", CHANNELS, "H", "W"])}, {"sample": (float_, ["B", 3, "h", "w"])})


def encoder(seed: int = 4, draws: bool = False) -> onnx.ModelProto:
    """Means and variances of latents, or as older exports have it, latents that it draws by itself."""
    made, float_ = Builder(seed), TensorProto.FLOAT
    kernel = made.weight(CHANNELS if draws else 2 * CHANNELS, 3, SMALLER, SMALLER)
    name = "latent_sample" if draws else "latent_parameters"
    if draws:
        mean = made.node("Conv", ["sample", kernel], strides=[SMALLER, SMALLER])
        made.node("Add", [mean, made.node("RandomNormalLike", [mean])], name)
    else:
        made.node("Conv", ["sample", kernel], name, strides=[SMALLER, SMALLER])
    return made.model({"sample": (float_, ["B", 3, "H", "W"])}, {name: (float_, ["B", "C", "h", "w"])})


def tokenizer(folder: Path, whole: bool = False, pad: str = END) -> None:
    """`vocab.json` and `merges.txt`, or `whole`: `tokenizer.json`."""
    folder.mkdir()
    if whole:
        (folder / "tokenizer.json").write_text(clip_tokenizer(MERGES))
    else:
        (folder / "vocab.json").write_text(json.dumps(vocabulary(MERGES)))
        (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in MERGES))
    settings = {"bos_token": START, "eos_token": END, "pad_token": pad}
    (folder / "special_tokens_map.json").write_text(json.dumps(settings))


def stable_folder(
    folder: Path,
    xl: bool = False,
    schedule: dict[str, Any] | None = None,
    external: bool = False,
    whole: bool = False,
    graphs: dict[str, onnx.ModelProto | None] | None = None,
) -> Path:
    """Make a folder; `graphs` replaces networks, None leaves one out. `external`: the UNet has `weights.pb`."""
    networks: dict[str, onnx.ModelProto | None] = {
        "text_encoder": text_encoder(layers=4 if xl else 0, ids=TensorProto.INT64 if xl else TensorProto.INT32),
        **({"text_encoder_2": text_encoder(5, layers=4, embeds=True, ids=TensorProto.INT64)} if xl else {}),
        "unet": unet(xl=xl),
        "vae_decoder": decoder(),
        "vae_encoder": encoder(),
        **(graphs or {}),
    }
    folder.mkdir(parents=True)
    for name, model in networks.items():
        if model is None:
            continue
        (folder / name).mkdir()
        kept = {"save_as_external_data": True, "location": "weights.pb", "size_threshold": 0}
        onnx.save(model, folder / name / "model.onnx", **(kept if external and name == "unet" else {}))
    (folder / "unet" / "config.json").write_text(json.dumps({"sample_size": 4}))
    blocks = {"block_out_channels": [1, 1, 1, 1], "scaling_factor": 0.13025 if xl else 0.18215}
    (folder / "vae_decoder" / "config.json").write_text(json.dumps(blocks))
    for name in ("tokenizer", *(("tokenizer_2",) if xl else ())):
        tokenizer(folder / name, whole, "!" if name == "tokenizer_2" else END)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({**SCHEDULE, **(schedule or {})}))
    kind = "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline"
    (folder / "model_index.json").write_text(json.dumps({"_class_name": kind, "_diffusers_version": "0.30.0"}))
    return folder
