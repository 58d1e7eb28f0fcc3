"""Models whose weights lie in a file of their own, random and of any size; and what plain ONNX Runtime answers."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from tests.onnx_graphs import FLOAT, model_of, value

WIDE = 1024
LAYER_BYTES = WIDE * WIDE * 4
CARD = 'version = "2"\n[[inputs]]\nname = "images"\ncolours = "gray"\nmean = 12.0\nstd = 50.0\n'


def large_model(folder: Path, layers: int, name: str = "model", seed: int = 0) -> Path:
    """`images [N, 1, 8, 8] float32` -> `features [N, 1024]`, by layers of 4 MiB in `NAME.onnx_data`; and its card."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, data = np.random.default_rng(seed), f"{name}.onnx_data"
    with (folder / data).open("wb") as file:
        for _ in range(layers):
            file.write(((rng.random((WIDE, WIDE), np.float32) - 0.5) * 0.1).tobytes())
    (folder / f"{name}.toml").write_text(CARD)
    return graph_of_layers(folder / f"{name}.onnx", data, layers)


def graph_of_layers(path: Path, data: str, layers: int) -> Path:
    """The ONNX file of such a model, whose weights are in the file `data` beside it."""
    weights = [_outside(f"w{number}", data, number * LAYER_BYTES) for number in range(layers)]
    first = np.random.default_rng(1).random((64, WIDE), np.float32) - 0.5
    nodes = [
        helper.make_node("Reshape", ["images", "flat"], ["rows"]),
        helper.make_node("MatMul", ["rows", "first"], ["y0"]),
    ]
    for number in range(layers):
        nodes.append(helper.make_node("MatMul", [f"y{number}", f"w{number}"], [f"z{number}"]))
        nodes.append(helper.make_node("Tanh", [f"z{number}"], [f"y{number + 1}"]))
    nodes.append(helper.make_node("Identity", [f"y{layers}"], ["features"]))
    inside = numpy_helper.from_array(np.array([-1, 64]), "flat"), numpy_helper.from_array(first, "first")
    inputs, outputs = [value("images", FLOAT, ["N", 1, 8, 8])], [value("features", FLOAT, ["N", WIDE])]
    path.write_bytes(model_of(nodes, inputs, outputs, (*inside, *weights)))
    return path


def plain_answer(path: Path, pixels: Any) -> Any:
    """`features` of `pixels [N, 8, 8] uint8` by ONNX Runtime from the files as they were exported."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    images = (pixels[:, None].astype(np.float32) - 12) / 50
    return ort.InferenceSession(path, options, ["CPUExecutionProvider"]).run(None, {"images": images})[0]


def _outside(name: str, location: str, offset: int) -> TensorProto:
    tensor = TensorProto(name=name, data_type=FLOAT, dims=[WIDE, WIDE], data_location=TensorProto.EXTERNAL)
    for key, said in (("location", location), ("offset", offset), ("length", LAYER_BYTES)):
        tensor.external_data.add(key=key, value=str(said))
    return tensor
