"""Compact upscalers by rigflow's own kernels: near the answers of the CPU, and the same bits alone and together."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.upscale import CARD, REAL, random_network
from engines.content import graph_of
from engines.cuda.gpu import CudaGpu
from engines.heads.planes import picture_bytes
from engines.heads.reductions import ByteValues
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.inference.own_kernels import own_session
from engines.models.catalogue import load_model
from schemas.model import ModelSpec
from schemas.model_profile import ComputeOptions
from tests.weights import weights

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300), pytest.mark.usefixtures("since_ampere")]
OPTIONS = ComputeOptions(precision="fp16", kernels=True)


def upscaler(folder: Path, graph: bytes, height: int, width: int) -> tuple[ModelSpec, bytes]:
    path = folder / "upscaler.onnx"
    path.write_bytes(graph)
    path.with_suffix(".toml").write_text(CARD.format(height, width))
    spec, content = load_model(path)
    return spec, graph_of(content)


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("size", [(40, 48), (64, 96), (61, 75)])
def test_answers_are_near_those_of_the_processor(
    gpu: CudaGpu, tmp_path: Path, size: tuple[int, int], real: bool
) -> None:
    graph = weights(REAL).read_bytes() if real else random_network()
    spec, model = upscaler(tmp_path, graph, *size)
    session = own_session(model, spec, gpu, tmp_path, OPTIONS, False)
    session.warm_up()
    pixels = np.random.default_rng(5).integers(0, 256, (3, *size, 3), np.uint8)
    [output], name = spec.outputs, spec.inputs[0].name
    found = np.asarray(session.run({name: pixels})[output.name])
    expected = OnnxRuntimeSession(model, spec).run({name: pixels})[output.name]
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 2e-3
    alone = [np.asarray(session.run({name: pixels[row : row + 1]})[output.name])[0] for row in range(3)]
    np.testing.assert_array_equal(np.stack(alone), found)
    for order in ((0, 1, 2), (2, 1, 0)):
        session.reduce((ByteValues(output.name, 1, order=order),))
        pictures = np.asarray(session.run({name: pixels})[output.name])
        np.testing.assert_array_equal(pictures, picture_bytes(found.transpose(0, 2, 3, 1), order, 0, 1))
    session.close()
