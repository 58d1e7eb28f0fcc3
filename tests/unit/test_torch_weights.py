"""Weights of torch become ONNX files that compute the same, where the extra `convert` is installed."""

from importlib import import_module
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from engines.models.torch_weights import convert
from schemas.errors import ModelError

torch = pytest.importorskip("torch")
pytest.importorskip("spandrel")


@pytest.mark.parametrize("key", ["params", "params_ema"])
def test_a_compact_network_in_the_official_layout(tmp_path: Path, key: str) -> None:
    architecture = import_module("spandrel.architectures.Compact.__arch.SRVGG").SRVGGNetCompact
    network = architecture(num_in_ch=3, num_out_ch=3, num_feat=16, num_conv=4, upscale=2).eval()
    torch.save({key: network.state_dict()}, tmp_path / "m.pth")
    picture = np.random.default_rng(0).random((2, 3, 40, 56)).astype(np.float32)
    (found,) = onnxruntime.InferenceSession(convert(tmp_path / "m.pth")).run(None, {"input": picture})
    with torch.inference_mode():
        expected = network(torch.from_numpy(picture)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_other_tensors_are_refused_in_a_line(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "m.pth")
    with pytest.raises(ModelError, match=r"m\.pth has weights of no network that spandrel knows") as caught:
        convert(tmp_path / "m.pth")
    assert "\n" not in str(caught.value)
