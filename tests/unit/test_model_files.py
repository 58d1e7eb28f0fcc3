"""Files of models from outside: weights and model cards beside them, batches and outputs that are not as declared."""

import ctypes
import operator
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from engines import own_process
from engines.inference import onnxruntime
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.models.catalogue import load_model, save_model, travelling
from engines.models.files import NewFiles
from engines.models.folders import take
from engines.models.reading import travelling_form
from engines.own_process import in_own_process
from schemas.errors import ExitCode, ModelError
from schemas.model import ModelCard
from tests.cli import rigflow
from tests.onnx_graphs import BODY, FLOAT, INT64, PIXELS, PLACES, UINT8, WEIGHTS, as_initializer, model_of, value


@pytest.mark.parametrize("made", PLACES)
def test_weights_outside_of_a_model_are_never_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Callable[[str], bytes]
) -> None:
    """Else they would be any file below the folder that a worker runs in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    (tmp_path / "m.onnx").write_bytes(made("secret.bin"))
    for load in (lambda: onnxruntime.load(made("secret.bin"), "m"), lambda: load_model(tmp_path / "m.onnx")):
        with pytest.raises(ModelError, match=r"its weights are in another file, secret\.bin: `rigflow model add`"):
            load()


@pytest.mark.parametrize("large_bytes", [0, 1 << 30], ids=["as a file", "as bytes"])
def test_onnx_runtime_itself_is_given_no_folder_to_read_weights_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large_bytes: int
) -> None:
    monkeypatch.setattr(onnxruntime, "_LARGE_BYTES", large_bytes)
    monkeypatch.setattr(onnxruntime, "check_weights", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    for made in PLACES:
        with pytest.raises(ModelError, match="cannot be loaded"):
            onnxruntime.load(made("secret.bin"), "leak")


@pytest.mark.parametrize("made", PLACES)
@pytest.mark.parametrize("location", ["w.bin", "deeper/w.bin"])
def test_an_import_takes_weights_beside_the_model(tmp_path: Path, made: Callable[[str], bytes], location: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(made(location))
    (tmp_path / "deeper").mkdir()
    (tmp_path / location).write_bytes(WEIGHTS.tobytes())
    with NewFiles(tmp_path / "store", list) as new:
        taken = take(path, None, new)
        (tmp_path / location).unlink()
        card = ModelCard(name="m", files=taken.files)
        spec, content = travelling(path, card, taken.content)
        answer = OnnxRuntimeSession(content, spec).run({"pixels": np.full((2, 4), 7, np.uint8)})["score"]
    np.testing.assert_array_equal(answer, np.stack([WEIGHTS + 7] * 2))


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("../secret.bin", r"in \.\./secret\.bin, which is not beside it"),
        ("{}/secret.bin", "which is not beside it"),
        ("link.bin", r"in link\.bin, which is not beside it"),
        ("sub/../w.bin", "which is not beside it|No such file"),
        ("nowhere.bin", r"in nowhere\.bin: No such file or directory: put that file beside it"),
        ("*/_ORT_MEM_ADDR_/*", "No such file"),
        ("", "cannot read weights|not beside it"),
    ],
)
def test_an_import_reads_nothing_else(tmp_path: Path, location: str, words: str) -> None:
    folder = tmp_path / "sub"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "m.onnx").write_bytes(as_initializer(location.format(tmp_path)))
    with pytest.raises(ModelError, match=words) as caught:
        take(folder / "m.onnx", None, NewFiles(tmp_path / "store", list))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists()


def test_a_file_in_the_runtimes_own_format_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x20\0\0\0ORTM" + bytes(100))
    with pytest.raises(ModelError, match="in ONNX Runtime's own format"):
        load_model(tmp_path / "m.onnx")


def test_a_model_is_added_with_the_card_beside_it(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path)}
    (tmp_path / "m.onnx").write_bytes(mean())
    (tmp_path / "m.toml").write_text('name = "faces"\nversion = "7"\n')
    output = rigflow("model", "add", tmp_path / "m.onnx", **env)
    assert "\nkept faces@7 " in output.stdout
    kept = tmp_path / ".local/share/rigflow/models"
    assert sorted(path.name for path in kept.iterdir()) == ["faces.onnx", "faces.toml"]


def mean(rows: int | str = "N", out: int | str = "N") -> bytes:
    """`pixels [rows, 4] uint8` -> `score [out] float32`."""
    reduce = helper.make_node("ReduceMean", ["f"], ["score"], axes=[1], keepdims=0)
    return model_of([BODY[0], reduce], [value("pixels", UINT8, [rows, 4])], [value("score", FLOAT, [out])])


def one_row_at_a_time() -> bytes:
    """It declares a free batch, and the size of its batch is baked into a Reshape."""
    shape = numpy_helper.from_array(np.array([1, 4]), "shape")
    reshape = helper.make_node("Reshape", ["f", "shape"], ["score"])
    return model_of([BODY[0], reshape], PIXELS, [value("score", FLOAT, ["N", 4])], (shape,))


def squeezed() -> bytes:
    axes = numpy_helper.from_array(np.array([0]), "axes")
    squeeze = helper.make_node("Squeeze", ["f", "axes"], ["score"])
    return model_of([BODY[0], squeeze], [value("pixels", UINT8, [1, 4])], [value("score", FLOAT, [4])], (axes,))


def with_scalar() -> bytes:
    nodes = [
        helper.make_node("Cast", ["rate"], ["r"], to=FLOAT),
        helper.make_node("Mul", ["f", "r"], ["score"]),
    ]
    inputs = [*PIXELS, value("rate", INT64, [])]
    return model_of([BODY[0], *nodes], inputs, [value("score", FLOAT, ["N", 4])])


def summed_over_the_batch() -> bytes:
    reduce = helper.make_node("ReduceMean", ["f"], ["score"], axes=[0], keepdims=1)
    return model_of([BODY[0], reduce], PIXELS, [value("score", FLOAT, [1, 4])])


def too_large() -> bytes:
    """It wants 40 TB for a row."""
    shape = numpy_helper.from_array(np.array([1, 10**13]), "shape")
    nodes = [
        helper.make_node("ReduceMean", ["f"], ["s"], axes=[1], keepdims=1),
        helper.make_node("Expand", ["s", "shape"], ["big"]),
        helper.make_node("ReduceMean", ["big"], ["score"], axes=[1], keepdims=0),
    ]
    return model_of([BODY[0], *nodes], PIXELS, [value("score", FLOAT, ["N"])], (shape,))


CARD = '[[inputs]]\nname = "pixels"\ndtype = "uint8"\nshape = {}\n'


@pytest.mark.parametrize(
    ("body", "card", "words"),
    [
        (mean(1, 1), CARD.format('["N", 4]'), "input `pixels`: its model card says N rows, its graph takes 1: correct"),
        (mean(), CARD.format('["N", "W"]'), "input `pixels`, dimension 1: its model card says W, its graph takes 4"),
        (one_row_at_a_time(), "", "declares a free batch and takes only one row"),
        (summed_over_the_batch(), "", r"output `score`: shape \[1, 4\] for a batch of 2"),
        (squeezed(), "", r"output `score`: shape \[4\] for a batch of 1"),
        (with_scalar(), "", "input `rate` has no batch dimension: give it a value in its model card"),
        (too_large(), "", "it needs 40 TB of memory for one array"),
    ],
)
def test_what_would_fail_in_every_run_is_refused_when_the_model_is_read(
    tmp_path: Path, body: bytes, card: str, words: str
) -> None:
    (tmp_path / "m.onnx").write_bytes(body)
    if card:
        (tmp_path / "m.toml").write_text(card)
    with pytest.raises(ModelError, match=words) as caught:
        load_model(tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)


def test_a_card_that_says_one_row_makes_such_a_model_fit(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(one_row_at_a_time())
    (tmp_path / "m.toml").write_text(CARD.format("[1, 4]"))
    assert load_model(tmp_path / "m.onnx")[0].inputs[0].shape == (1, 4)


def squeezed_in_old_opset() -> bytes:
    """As `squeezed`, in the opset in which axes are attributes."""
    squeeze = helper.make_node("Squeeze", ["f"], ["score"], axes=[0])
    return model_of([BODY[0], squeeze], [value("pixels", UINT8, [1, 4])], [value("score", FLOAT, [4])], opset=11)


def without_batch() -> bytes:
    """`pixels [4] uint8` -> `score [4]`, its double, by a branch that reads it from outside; and `sum []`."""
    branch = helper.make_graph([helper.make_node("Add", ["f", "f"], ["o"])], "b", [], [value("o", FLOAT, [4])])
    yes = numpy_helper.from_array(np.array(True), "yes")
    nodes = [
        BODY[0],
        helper.make_node("If", ["yes"], ["score"], then_branch=branch, else_branch=branch),
        helper.make_node("ReduceSum", ["score"], ["sum"], keepdims=0),
    ]
    outputs = [value("score", FLOAT, [4]), value("sum", FLOAT, [])]
    return model_of(nodes, [value("pixels", UINT8, [4])], outputs, (yes,))


@pytest.mark.parametrize("made", [squeezed, squeezed_in_old_opset, without_batch])
def test_a_card_gives_a_graph_the_batch_that_it_lacks(tmp_path: Path, made: Callable[[], bytes]) -> None:
    (tmp_path / "m.onnx").write_bytes(made())
    with pytest.raises(ModelError, match=r'say batch = "none" (?:in|there)'):
        load_model(tmp_path / "m.onnx")
    (tmp_path / "m.toml").write_text('batch = "none"\n')
    spec, body = load_model(tmp_path / "m.onnx")
    assert (spec.inputs[0].shape, spec.outputs[0].shape) == ((1, 4), (1, 4))
    pixels = np.array([[1, 2, 3, 4]], np.uint8)
    found = OnnxRuntimeSession(body, spec).run({"pixels": pixels})
    if made is without_batch:
        np.testing.assert_array_equal(found["score"], pixels * 2.0)
        np.testing.assert_array_equal(found["sum"], [20.0])
    else:
        np.testing.assert_array_equal(found["score"], pixels)
    again = save_model(tmp_path / "kept", spec, body)
    assert load_model(again) == (spec, body), "what was imported has its batch"


def test_a_card_says_rows_or_none(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(mean())
    (tmp_path / "m.toml").write_text('batch = "one"\n')
    with pytest.raises(ModelError, match=r"m\.toml, batch: should be 'rows' or 'none'"):
        load_model(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../../evil", "name: takes letters, digits, . - and _, at most 128, the first a letter or digit"),
        ("/abs/evil", "name: takes letters"),
        ("", "name: takes letters"),
        ("a b", "name: takes letters"),
        ("x" * 300, "name: takes letters"),
        ("fingerprint", "rigflow has a model fingerprint of its own: give yours another name"),
    ],
)
def test_a_model_is_added_nowhere_but_under_a_name_of_its_own(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "m.onnx").write_bytes(mean())
    (tmp_path / "m.toml").write_text(f'name = "{name}"\n')
    before = sorted(tmp_path.rglob("*"))
    ended = rigflow("model", "add", tmp_path / "m.onnx", HOME=str(tmp_path))
    assert (ended.returncode, ended.stderr.count("\n")) == (ExitCode.USAGE, 1)
    assert words in ended.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_model_without_inputs_is_refused() -> None:
    constant = helper.make_node("Constant", [], ["score"], value=numpy_helper.from_array(np.zeros((1, 3), np.float32)))
    body = model_of([constant], [], [value("score", FLOAT, [1, 3])])
    with pytest.raises(ModelError, match="model `m` has no inputs: export it with one"):
        travelling_form(body, "m", ModelCard(name="m"))


@pytest.mark.parametrize("command", ["add", "build", "bench"])
@pytest.mark.parametrize("body", [with_scalar(), as_initializer("../w.bin"), b"", b"no model", one_row_at_a_time()])
def test_no_command_ends_in_a_traceback(tmp_path: Path, command: str, body: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(body)
    options = {"add": (), "build": ("--for", "sm86"), "bench": ("--batches", "1")}[command]
    env = {"HOME": str(tmp_path), "RIGFLOW_CACHE": str(tmp_path / "cache")}
    ended = rigflow("model" if command == "add" else "engine", command, tmp_path / "m.onnx", *options, **env)
    assert ended.returncode == ExitCode.USAGE
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith(("rigflow: model `", f"rigflow: {tmp_path / 'm.onnx'} is empty: "))


def test_reading_a_model_imports_no_onnx_runtime_here(tmp_path: Path) -> None:
    """It takes a third of a second and 40 MB, at the start of each command."""
    (tmp_path / "m.onnx").write_bytes(mean())
    code = (
        "import sys, pathlib, workers.local; from engines.models.catalogue import load_model;"
        f"load_model(pathlib.Path({str(tmp_path / 'm.onnx')!r})); assert 'onnxruntime' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# calls in a process of their own


def test_a_process_of_its_own_answers_or_says_how_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_process, "subprocess", subprocess)  # not those of tests.warm_process
    assert in_own_process("m", "loads", "", str.upper, "x" * (1 << 20)) == "X" * (1 << 20)
    assert in_own_process("m", "loads", "", os.write, 1, b"what a library prints") == 21
    with pytest.raises(ModelError, match=r"`m` ends the process that builds it \(SIGSEGV\): export it again"):
        in_own_process("m", "builds", "export it again", ctypes.string_at, 0)
    with pytest.raises(ModelError, match=r"SIGKILL, perhaps because memory ran out"):
        in_own_process("m", "builds", "", signal.raise_signal, signal.SIGKILL)
    with pytest.raises(ModelError, match=r"\(exit code 3\)"):
        in_own_process("m", "builds", "", os._exit, 3)
    with pytest.raises(ModelError, match=r"the process that converts it fails: IndexError: list index out of range"):
        in_own_process("m", "converts", "", operator.getitem, [], 0)
    with pytest.raises(ModelError, match=r"the process that loads it needs more memory than there is: use a machine"):
        in_own_process("m", "loads", "export it in fp32", np.ones, 1 << 58)
    with pytest.raises(ModelError, match=r"in ONNX Runtime's own format: give its \.onnx file"):
        in_own_process("m", "converts", "", onnxruntime.load, b"ONNXORTM", "m")
