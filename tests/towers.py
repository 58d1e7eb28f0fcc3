"""Small models of pictures and texts in the layouts that exporters write, whose answers are known.

The vector of a picture is the colours of its 4 x 4 cells times a matrix; the vector of a text is the sum of its tokens'
vectors, and those of `red`, `green` and `blue` are those of pictures of these colours.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tests.clip_tokens import clip_tokenizer, vocabulary

Array = np.ndarray[Any, Any]
SIDE, WIDTH, LENGTH = 32, 24, 12
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
COLOURS = {"red": (230, 30, 30), "green": (30, 200, 40), "blue": (20, 40, 220)}
SCALE, SIGLIP_SCALE, SIGLIP_BIAS = 100.0, 117.33, -12.93
MERGES = [
    pair
    for word in ("green", "red", "blue", "picture", "of")  # in this order, so that each word becomes one token
    for pair in [
        *((word[:end], word[end]) for end in range(1, len(word) - 1)),
        (word[:-1], f"{word[-1]}</w>"),
    ]
]
WORDS = vocabulary(MERGES)
_RANDOM = np.random.default_rng(11)
MATRIX = _RANDOM.normal(size=(48, WIDTH)).astype(np.float32)


def _colour(colour: tuple[int, int, int]) -> Array:
    """The vector of a picture of one colour."""
    values = (np.array(colour) / 255 - MEAN) / STD
    return np.asarray(np.repeat(values, 16) @ MATRIX, np.float32)


def table() -> Array:
    """The vector of each token."""
    rows = _RANDOM.normal(size=(len(WORDS), WIDTH)).astype(np.float32) * 0.05
    for word, colour in COLOURS.items():
        rows[WORDS[f"{word}</w>"]] = _colour(colour)
    return rows


TABLE = table()


def _image_nodes() -> list[onnx.NodeProto]:
    return [
        helper.make_node("AveragePool", ["pixel_values"], ["cells"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["cells"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["image_sum"]),
    ]


def _text_nodes(mask: bool) -> list[onnx.NodeProto]:
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["tokens"])]
    if not mask:
        return [*nodes, helper.make_node("ReduceSum", ["tokens", "axis"], ["text_sum"], keepdims=0)]
    return [
        *nodes,
        helper.make_node("Cast", ["attention_mask"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["floats", "last"], ["weights"]),
        helper.make_node("Mul", ["tokens", "weights"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "axis"], ["text_sum"], keepdims=0),
    ]


def _unit(name: str, made: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("ReduceL2", [name], [f"{name}_length"], axes=[1], keepdims=1),
        helper.make_node("Div", [name, f"{name}_length"], [made]),
    ]


def _scores(siglip: bool) -> list[onnx.NodeProto]:
    nodes = [
        helper.make_node("Transpose", ["image_embeds"], ["images"], perm=[1, 0]),
        helper.make_node("MatMul", ["text_embeds", "images"], ["cosines"]),
        helper.make_node("Exp", ["logit_scale"], ["scale"]),
        helper.make_node("Mul", ["cosines", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "logit_bias"], ["logits_per_text"]),
        helper.make_node("Transpose", ["logits_per_text"], ["logits_per_image"], perm=[1, 0]),
    ]
    if not siglip:
        nodes[4] = helper.make_node("Identity", ["scaled"], ["logits_per_text"])
    return nodes


def _graph(nodes: list[onnx.NodeProto], outputs: dict[str, list[str | int]], siglip: bool = False) -> bytes:
    constants = {
        "matrix": MATRIX,
        "table": TABLE,
        "axis": np.array([1]),
        "last": np.array([-1]),
        "logit_scale": np.array(np.log(SIGLIP_SCALE if siglip else SCALE), np.float32),
        "logit_bias": np.array(SIGLIP_BIAS, np.float32),
    }
    read = {name for node in nodes for name in node.input}
    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch_size", "sequence_length"]),
        helper.make_tensor_value_info(
            "pixel_values", TensorProto.FLOAT, ["batch_size", "num_channels", "height", "width"]
        ),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch_size", "sequence_length"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [each for each in inputs if each.name in read],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items() if name in read],
    )
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )


def vision_graph() -> bytes:
    """`image_embeds`, and cells that are not read, as optimum writes `last_hidden_state`."""
    nodes = [*_image_nodes(), helper.make_node("Identity", ["image_sum"], ["image_embeds"])]
    nodes.append(helper.make_node("Identity", ["cells"], ["last_hidden_state"]))
    return _graph(nodes, {"last_hidden_state": ["batch_size", 3, 4, 4], "image_embeds": ["batch_size", WIDTH]})


def text_graph(mask: bool = True) -> bytes:
    """`text_embeds`."""
    nodes = [*_text_nodes(mask), helper.make_node("Identity", ["text_sum"], ["text_embeds"])]
    return _graph(nodes, {"text_embeds": ["batch_size", WIDTH]})


def both_graph(siglip: bool = False) -> bytes:
    """Both towers and their scores in one graph; SigLIP's has no mask: it looks at the padding."""
    nodes = [*_image_nodes(), *_text_nodes(not siglip)]
    nodes += [*_unit("image_sum", "image_embeds"), *_unit("text_sum", "text_embeds"), *_scores(siglip)]
    outputs: dict[str, list[str | int]] = {
        "logits_per_image": ["batch_size", "text_batch_size"],
        "logits_per_text": ["text_batch_size", "batch_size"],
        "text_embeds": ["text_batch_size", WIDTH],
        "image_embeds": ["batch_size", WIDTH],
    }
    return _graph(nodes, outputs, siglip)


def renamed(graph: bytes, **names: str) -> bytes:
    """A graph whose inputs and outputs have other names; pictures have a fixed size."""
    model = onnx.load_from_string(graph)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*model.graph.input, *model.graph.output):
        if value.name == "pixel_values":
            for dim, size in zip(value.type.tensor_type.shape.dim[1:], (3, SIDE, SIDE), strict=True):
                dim.dim_value = size
        value.name = names.get(value.name, value.name)
    return bytes(model.SerializeToString())


PREPROCESSOR = {
    "crop_size": {"height": SIDE, "width": SIDE},
    "do_center_crop": True,
    "do_normalize": True,
    "do_rescale": True,
    "image_mean": MEAN,
    "image_std": STD,
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": SIDE},
}


IMMICH = {
    "embed_dim": WIDTH,
    "text_cfg": {"context_length": LENGTH, "tokenizer_kwargs": {"clean": "canonicalize"}},
}


def clip_folder(folder: Path, layout: str = "split") -> Path:
    """A folder as people download it: `split`, `both`, `siglip`, or `immich`."""
    siglip = layout in ("siglip", "immich")
    graphs = {
        "split": {"onnx/vision_model.onnx": vision_graph(), "onnx/text_model.onnx": text_graph()},
        "both": {"model.onnx": both_graph()},
        "siglip": {"model.onnx": both_graph(siglip=True)},
        "immich": {
            "visual/model.onnx": renamed(vision_graph(), pixel_values="image", image_embeds="vector"),
            "textual/model.onnx": renamed(text_graph(mask=False), input_ids="text", text_embeds="vector"),
        },
    }[layout]
    graphs["onnx/vision_model_quantized.onnx" if layout == "split" else "README.md"] = b"left out"
    texts = "textual/" if layout == "immich" else ""
    settings = {"pad_token": "!" if siglip else "<|endoftext|>", "model_max_length": LENGTH}
    config: dict[str, Any] = {"architectures": ["CLIPModel"], "model_type": "siglip" if siglip else "clip"}
    config["text_config"] = {"max_position_embeddings": LENGTH}
    files = {
        **graphs,
        f"{texts}tokenizer.json": clip_tokenizer(MERGES).encode(),
        f"{texts}tokenizer_config.json": json.dumps(settings).encode(),
    }
    if layout == "immich":
        how = {"size": [SIDE, SIDE], "mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
        files |= {"visual/preprocess_cfg.json": json.dumps(how).encode()}
        files |= {"config.json": json.dumps(IMMICH).encode()}
    else:
        files |= {"preprocessor_config.json": json.dumps(PREPROCESSOR).encode()}
        files |= {"config.json": json.dumps(config).encode()}
    for name, body in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
    return folder


# the reference, which shares no code with the product


def picture_vector(picture: Array) -> Array:
    """The vector of a picture `[H, W, 3]` uint8: Pillow, NumPy, ONNX Runtime; unit length."""
    image = Image.fromarray(picture)
    short = min(image.size)
    size = tuple(int(side * SIDE / short) for side in image.size)
    image = image.resize((size[0], size[1]), Image.Resampling.BICUBIC)
    left, top = round((image.width - SIDE) / 2), round((image.height - SIDE) / 2)  # as torchvision
    cropped = np.asarray(image.crop((left, top, left + SIDE, top + SIDE)), np.float64)
    values = ((cropped / 255 - MEAN) / STD).transpose(2, 0, 1).astype(np.float32)
    session = onnxruntime.InferenceSession(vision_graph(), providers=["CPUExecutionProvider"])
    [made] = session.run(["image_embeds"], {"pixel_values": values[None]})
    return np.asarray(made[0] / np.linalg.norm(made[0].astype(np.float64)))


def text_vector(tokens: list[str], pad: str = "") -> Array:
    """The vector of a text of these tokens between start and end, padded to the length where the tower sees it."""
    ids = [WORDS["<|startoftext|>"], *(WORDS[token] for token in tokens), WORDS["<|endoftext|>"]]
    ids += [WORDS[pad]] * (LENGTH - len(ids)) if pad else []
    made = TABLE[ids].astype(np.float64).sum(axis=0)
    return np.asarray(made / np.linalg.norm(made))
