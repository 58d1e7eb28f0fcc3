"""Models of users: what a file says of itself, and what a card adds."""

import hashlib
import os
import re
import signal
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from engines.models.catalogue import load_model
from engines.own_process import in_own_process
from schemas.errors import ExitCode, ModelError
from schemas.model import ModelSpec, TensorSpec
from schemas.picture import PictureSpec


@pytest.fixture
def frames_model(tmp_path: Path) -> Path:
    """A model as frameworks export them: `image [batch, 3, 8, 12] float32` -> `features [batch, 3]`."""
    path = tmp_path / "colours.onnx"
    node = helper.make_node("ReduceMean", ["image"], ["features"], axes=[2, 3], keepdims=0)
    given = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 12])
    made = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph([node], "colours", [given], [made])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_model_without_a_card_describes_itself(frames_model: Path) -> None:
    spec, body = load_model(frames_model)
    assert spec == ModelSpec(
        name="colours",
        inputs=(TensorSpec(name="image", dtype="uint8", shape=("batch", 8, 12, 3), picture=PictureSpec(size=(8, 12))),),
        outputs=(TensorSpec(name="features", dtype="float32", shape=("batch", 3)),),
        sha256=hashlib.sha256(body).hexdigest(),
    )


def test_a_card_adds_what_the_graph_does_not_know(frames_model: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.toml"
    card.write_text('name = "mean-colour"\nversion = "3"\ndescription = "three numbers"\n')
    spec, _ = load_model(frames_model, card)
    assert (spec.name, spec.version, spec.description) == ("mean-colour", "3", "three numbers")
    assert spec.inputs[0].name == "image"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name =", "not TOML"),
        ('name = "x"\n[[stage]]\nkind = "decode"\n', "card.toml is a pipeline, not the card of a model"),
        ("colour = 1", "colour: unknown field"),
        ("name = 3", "name: should be a valid string"),
        ('name = "../../evil"', "name: takes letters, digits, . - and _, at most 128"),
        ('name = "/abs"', "name: takes letters, digits, . - and _, at most 128"),
        ('version = "../x"', "version: takes letters, digits"),
        ('sha256 = "00"', "is not the file its model card"),
        ('inputs = [{ name = "image", dtype = "uint8", shape = ["N", 3, 8, 12] }]', "its model card says uint8"),
        ('outputs = [{ name = "z", dtype = "float32", shape = ["N"] }]', "has no output `z`, only `features`"),
    ],
)
def test_a_bad_card_is_one_line(frames_model: Path, tmp_path: Path, text: str, words: str) -> None:
    card = tmp_path / "card.toml"
    card.write_text(text)
    with pytest.raises(ModelError, match=re.escape(words)) as caught:
        load_model(frames_model, card)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_a_model_that_ends_the_process_that_loads_it_is_one_line(
    frames_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime dies of a few graphs, other ones in each version: here its process ends by the same signal."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nkill -SEGV $$\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(ModelError, match=r"ends the process that loads it \(SIGSEGV\)") as caught:
        load_model(frames_model)
    assert caught.value.exit_code is ExitCode.USAGE


def test_a_model_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        load_model(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="Is a directory"):
        load_model(tmp_path)
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ModelError, match="is not an ONNX file"):
        load_model(tmp_path / "text.onnx")


@pytest.mark.parametrize("sent", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_to_the_group_does_not_reach_a_process_that_loads_a_model(sent: str) -> None:
    """Ctrl-C and the end of a service go to the whole group: the command ends, and does not blame the model."""
    assert in_own_process("m", "loads", "", _under, sent) == "answered"
    assert signal.Signals[sent] not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def _under(sent: str) -> str:
    os.kill(os.getpid(), signal.Signals[sent])
    return "answered"
