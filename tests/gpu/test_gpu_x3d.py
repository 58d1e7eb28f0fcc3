"""X3D networks by rigflow's own kernels: near the answers of the CPU, and the same bits alone and together."""

from pathlib import Path

import numpy as np
import pytest

from engines.cuda.gpu import CudaGpu
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.inference.own_kernels import own_session
from schemas.model import ModelSpec
from schemas.model_profile import ComputeOptions
from tests.nets import small_x3d, x3d

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300), pytest.mark.usefixtures("since_ampere")]
OPTIONS = ComputeOptions(precision="fp16", kernels=True)


@pytest.mark.parametrize("made", [small_x3d(), x3d()], ids=["small", "X3D-S"])
def test_answers_are_near_those_of_the_processor(gpu: CudaGpu, tmp_path: Path, made: tuple[ModelSpec, bytes]) -> None:
    spec, model = made
    session = own_session(model, spec, gpu, tmp_path, OPTIONS, False)
    session.warm_up()
    pixels = np.random.default_rng(5).integers(0, 256, (3, 13, 182, 182, 3), np.uint8)
    found = {name: np.asarray(array) for name, array in session.run({"pixels": pixels}).items()}
    expected = OnnxRuntimeSession(model, spec).run({"pixels": pixels})
    for name, array in expected.items():
        assert np.linalg.norm(found[name] - array) / np.linalg.norm(array) < 1e-2
    alone = [session.run({"pixels": pixels[row : row + 1]}) for row in range(3)]
    for row, each in enumerate(alone):
        np.testing.assert_allclose(np.asarray(each["features"])[0], found["features"][row], rtol=1e-4, atol=1e-6)
    again = session.run({"pixels": pixels})
    for name, array in found.items():
        np.testing.assert_array_equal(np.asarray(again[name]), array)
    session.close()
