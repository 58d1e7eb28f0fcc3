"""A network that overflows is refused when it is added; one that answers is not."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from cli.app import answer
from schemas.errors import ExitCode
from tests.faces import RESTORER, restorer
from tests.onnx_graphs import FLOAT, model_of
from tests.onnx_graphs import value as value_info

CLASSIFIER = """
[[inputs]]
name = "input"
[[heads]]
kind = "classify"
"""


def changed(factor: float, cast: Any = np.float32) -> bytes:
    """The network of the tests with weights times `factor`, rounded to a type."""
    model = onnx.load_from_string(restorer(64))
    for tensor in model.graph.initializer:
        if tensor.name in ("w", "b"):
            with np.errstate(over="ignore"):
                weights = (numpy_helper.to_array(tensor) * np.float32(factor)).astype(cast).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    return bytes(model.SerializeToString())


def classifier(value: float) -> bytes:
    """Scores of four classes: `value`, and the means of the three colours."""
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("Concat", ["value", "means"], ["scores"], axis=1),
    ]
    ports = value_info("input", FLOAT, [1, 3, 64, 64]), value_info("scores", FLOAT, [1, 4])
    constant = numpy_helper.from_array(np.array([[value]], np.float32), "value")
    return model_of(nodes, [ports[0]], [ports[1]], (constant,))


@pytest.mark.parametrize(
    ("body", "card", "words"),
    [
        (changed(1), RESTORER, ""),
        (changed(0), RESTORER, "is one flat colour"),
        (changed(1e6, np.float16), RESTORER, "has values that are not finite"),
        (classifier(1.0), CLASSIFIER, ""),
        (classifier(-np.inf), CLASSIFIER, ""),
        (classifier(np.nan), CLASSIFIER, "has values that are not finite"),
    ],
    ids=["sound", "flat", "half", "scores", "infinite score", "no score"],
)
def test_a_network_that_overflows_is_refused_in_a_line(
    body: bytes,
    card: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RIGFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    path = tmp_path / "restorer.onnx"
    path.write_bytes(body)
    path.with_suffix(".toml").write_text(card)
    code = answer(["model", "add", str(path)])
    error = capsys.readouterr().err
    if not words:
        assert code == ExitCode.OK, error
        return
    assert code != ExitCode.OK
    assert error.count("\n") == 1
    assert words in error
    assert "fp16" in error
    assert not list((tmp_path / "home").rglob("restorer.onnx"))
