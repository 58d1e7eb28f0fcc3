"""A denoise strength: two networks mixed at import, one model for each strength."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from PIL import Image

from engines.models.catalogue import own_model
from engines.models.mixing import mixed
from schemas.errors import ModelError
from tests.cli import rigflow
from tests.compact import compact
from tests.convolutions import convolutions


def mixture(first: bytes, second: bytes, share: float) -> bytes:
    """The reference: weights by name, in float64."""
    one, other = onnx.load_from_string(first), onnx.load_from_string(second)
    theirs = {each.name: numpy_helper.to_array(each).astype("f8") for each in other.graph.initializer}
    for mine in one.graph.initializer:
        made = share * numpy_helper.to_array(mine).astype("f8") + (1 - share) * theirs[mine.name]
        mine.CopyFrom(numpy_helper.from_array(made.astype("f4"), mine.name))
    return bytes(one.SerializeToString())


def answer(graph: bytes, picture: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: picture})[0]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_weights_are_mixed_number_by_number(share: float) -> None:
    first, second = compact(2, seed=1), compact(2, seed=2)
    picture = np.random.default_rng(0).random((1, 3, 20, 24)).astype("f4")
    made = mixed(first, second, share, Path("m.onnx"))
    np.testing.assert_allclose(answer(made, picture), answer(mixture(first, second, share), picture), atol=2e-6)
    if share in (0.0, 1.0):
        np.testing.assert_array_equal(answer(made, picture), answer(first if share else second, picture))


@pytest.mark.parametrize("second", [compact(3), compact(2, factor=2), convolutions(2, 4)])
def test_networks_of_two_forms_are_not_mixed(second: bytes) -> None:
    with pytest.raises(ModelError, match=r"^m\.onnx: .*the network that it is mixed with") as caught:
        mixed(compact(2), second, 0.5, Path("m.onnx"))
    assert "\n" not in str(caught.value)


def test_each_strength_is_a_model_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    strong, weak = (compact(32, 72, 72, seed=seed) for seed in (1, 2))
    path = tmp_path / "realesr-general-x4v3.onnx"
    path.write_bytes(strong)
    Image.new("RGB", (72, 72), "gray").save(tmp_path / "gray.png")
    options = ("--picture", tmp_path / "gray.png", "--denoise")
    done = rigflow("model", "add", path, *options, "0.3", HOME=str(tmp_path / "home"))
    assert "realesr-general-wdn-x4v3.onnx, which is not beside it: download it from https://github.com/" in done.stderr
    path.with_name("realesr-general-wdn-x4v3.onnx").write_bytes(weak)
    done = rigflow("model", "add", path, *options, "0.3", HOME=str(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    assert "kept realesr-general-x4v3-denoise-0.3@1" in done.stdout
    spec, _ = own_model("realesr-general-x4v3-denoise-0.3")
    assert "denoise strength 0.3" in spec.description
    assert spec.inputs[0].picture is not None
    assert spec.inputs[0].picture.overlap == 34
    stored = (tmp_path / "home/.local/share/rigflow/models/realesr-general-x4v3-denoise-0.3.onnx").read_bytes()
    picture = np.random.default_rng(0).random((1, 3, 72, 72)).astype("f4")
    np.testing.assert_allclose(answer(stored, picture), answer(mixture(strong, weak, 0.3), picture), atol=2e-5)


@pytest.mark.parametrize(
    ("name", "strength", "words"),
    [("theirs", "0.5", "theirs.onnx has no denoise strength"), ("realesr-general-x4v3", "1.5", "it is from 0 to 1")],
)
def test_what_has_no_strength_is_refused_in_a_line(tmp_path: Path, name: str, strength: str, words: str) -> None:
    (tmp_path / f"{name}.onnx").write_bytes(compact(2))
    done = rigflow("model", "add", tmp_path / f"{name}.onnx", "--denoise", strength, HOME=str(tmp_path))
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
