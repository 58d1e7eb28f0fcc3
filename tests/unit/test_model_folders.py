"""Models of several files, as weights, graphs and tokenizers: taken, shared, listed, removed, refused."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from pydantic import ValidationError

from engines.content import ModelFiles
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.inference.weights import check_weights, one_file
from engines.models.catalogue import load_model, own_model
from schemas.errors import ExitCode, ModelError
from schemas.model import ModelCard, ModelSpec
from schemas.model_files import FileSpec
from tests.cli import environment, rigflow
from tests.large_models import LAYER_BYTES, graph_of_layers, large_model, plain_answer
from tests.onnx_graphs import as_initializer
from tests.unit.outputs_parts import full_disk

PIXELS = np.random.default_rng(3).integers(0, 256, (2, 8, 8), np.uint8)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user's models."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home/.local/share/rigflow/models"


def added(path: Path, *options: str) -> str:
    ended = rigflow("model", "add", path, "--yes", *options, HOME=os.environ["HOME"])
    assert ended.returncode == ExitCode.OK, ended.stderr
    return ended.stdout


def refused(path: Path) -> str:
    ended = rigflow("model", "add", path, "--yes", HOME=os.environ["HOME"])
    assert ended.returncode != ExitCode.OK
    assert ended.stderr.count("\n") == 1
    return ended.stderr


def files_in(store: Path) -> list[str]:
    return sorted(each.name for each in store.iterdir()) if store.exists() else []


def encoder_and_decoder(folder: Path) -> Path:
    """Two graphs with the same weights, a tokenizer, and what is no part of a model."""
    large_model(folder, 2, "encoder_model")
    graph_of_layers(folder / "decoder_model.onnx", "encoder_model.onnx_data", 1)
    for name in ("tokenizer.json", "vocab.json", "config.json", "generation_config.json"):
        (folder / name).write_text(f'{{"of": "{name}"}}')
    (folder / "README.md").write_text("about")
    (folder / ".gitattributes").write_text("hidden")
    (folder / "decoder_model_quantized.onnx").write_bytes(b"another")
    return folder


def test_weights_in_their_own_file_are_not_in_the_graph_and_the_answer_is_the_same(tmp_path: Path, store: Path) -> None:
    path = large_model(tmp_path / "m", 2, "far")
    out = added(path)
    assert f"takes far.onnx_data, {2 * LAYER_BYTES / 1e6:.3g} MB: weights" in out
    spec, content = own_model("far")
    assert isinstance(content, ModelFiles)
    assert (spec.inputs[0].dtype, spec.inputs[0].shape) == ("uint8", ("N", 8, 8)), "the card's arithmetic is in front"
    assert len(content.graph) < 400_000
    assert [(file.name, file.size) for file in spec.files] == [("far.onnx_data", 2 * LAYER_BYTES)]
    assert files_in(store) == sorted(("far.onnx", "far.toml", spec.files[0].sha256))
    expected = plain_answer(path, PIXELS)
    shutil.rmtree(path.parent)
    answer = OnnxRuntimeSession(content, spec).run({"images": PIXELS})["features"]
    np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-6)


def test_a_folder_is_one_model_and_says_what_it_takes_and_leaves_out(tmp_path: Path, store: Path) -> None:
    out = added(encoder_and_decoder(tmp_path / "speech"))
    for line in (
        f"takes encoder_model.onnx_data, {2 * LAYER_BYTES / 1e6:.3g} MB: weights",
        ": a further graph\n",
        "takes tokenizer.json, 24 B: a tokenizer",
        "takes vocab.json, 20 B: a vocabulary",
        "leaves out README.md, decoder_model_quantized.onnx: rigflow runs the model without them",
        "kept speech@2",
    ):
        assert line in out
    spec, content = own_model("speech")
    assert isinstance(content, ModelFiles)
    names = {file.name: file for file in spec.files}
    weights = names["encoder_model.onnx_data"].sha256
    decoder = onnx.load_from_string((store / names["decoder_model.onnx"].sha256).read_bytes())
    assert {entry.value for entry in decoder.graph.initializer[-1].external_data} >= {weights}, "by the same file"
    shown = rigflow("model", "show", "speech", HOME=os.environ["HOME"]).stdout
    assert f"# file encoder_model.onnx_data {weights[:16]} 8.39 MB" in shown
    assert "# file tokenizer.json" in shown
    listed = rigflow("model", "list", HOME=os.environ["HOME"]).stdout
    [row] = [line.split() for line in listed.splitlines() if "speech" in line]
    assert row[-3:] == ["7", "8.91", "MB"]
    narrow = rigflow("model", "list", HOME=os.environ["HOME"], COLUMNS="40").stdout.splitlines()
    assert [line.split() for line in narrow if "lanczos2x" in line] == [
        ["model", "lanczos2x,", "comes", "with", "rigflow"]
    ]


def test_models_share_files_and_the_last_one_removes_them(tmp_path: Path, store: Path) -> None:
    path = large_model(tmp_path / "m", 1)
    added(path, "--name", "one")
    graph_of_layers(path, "model.onnx_data", 1)
    added(path, "--name", "two", "--set", "inputs.0.mean=3.0")
    [weights] = own_model("two")[0].files
    assert files_in(store) == sorted(("one.onnx", "one.toml", "two.onnx", "two.toml", weights.sha256))
    rigflow("model", "remove", "one", HOME=os.environ["HOME"])
    assert files_in(store) == sorted(("two.onnx", "two.toml", weights.sha256))
    rigflow("model", "remove", "two", HOME=os.environ["HOME"])
    assert files_in(store) == []


def test_the_identity_is_of_all_files(tmp_path: Path, store: Path) -> None:
    found = set()
    for seed in (1, 2):
        path = large_model(tmp_path / "m", 1, seed=seed)
        (path.parent / "tokenizer.json").write_text(str(min(seed, 2)))
        added(path.parent, "--name", "m")
        found.add(own_model("m")[0].identity)
    (path.parent / "tokenizer.json").write_text("3")
    added(path.parent, "--name", "m")
    assert len(found | {own_model("m")[0].identity}) == 3
    assert len(files_in(store)) == 4, "what the model had before is removed"


def test_nothing_stays_of_a_model_that_is_not_kept(tmp_path: Path, store: Path) -> None:
    path = large_model(tmp_path / "m", 1)
    added(path, "--dry-run")
    assert files_in(store) == []
    path.write_bytes(path.read_bytes()[:200])
    refused(path)
    assert files_in(store) == []


def test_a_full_disk_is_one_line_and_nothing_stays(tmp_path: Path, store: Path) -> None:
    path = large_model(tmp_path / "m", 2)
    with full_disk(LAYER_BYTES):
        assert f"cannot keep a model in {store}: File too large: make room" in refused(path)
    assert files_in(store) == []


def test_what_a_killed_command_left_is_removed_by_the_next(tmp_path: Path, store: Path) -> None:
    path = large_model(tmp_path / "m", 1)
    code = (  # the process ends where a copied file would get its name
        "import os, signal, sys; os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL); "
        "from cli.app import answer; answer(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "model", "add", str(path), "--yes"]
    ended = subprocess.run(command, env=environment() | {"HOME": os.environ["HOME"]}, timeout=100, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert any(name.startswith(".adding-") for name in files_in(store))
    assert not any(name.endswith((".onnx", ".toml")) for name in files_in(store))
    small = large_model(tmp_path / "small", 1)
    added(small, "--name", "small")
    [weights] = own_model("small")[0].files
    assert files_in(store) == sorted(("small.onnx", "small.toml", weights.sha256))


def test_a_file_that_is_gone_or_cut_is_one_line(tmp_path: Path, store: Path) -> None:
    added(large_model(tmp_path / "m", 1), "--name", "m")
    [weights] = own_model("m")[0].files
    file = store / weights.sha256
    with file.open("r+b") as opened:
        opened.truncate(100)
    with pytest.raises(ModelError, match=r"its file model\.onnx_data is damaged: .* has 100 bytes, not 4194304: add"):
        load_model(store / "m.onnx")
    file.unlink()
    with pytest.raises(ModelError, match=r"its file model\.onnx_data is missing: No such file or directory"):
        load_model(store / "m.onnx")


def content_of(folder: Path, location: str, size: int = 1024) -> ModelFiles:
    """A model whose graph says `location`, and whose one file, of 1024 bytes, is called `a...a`."""
    sha256 = "a" * 64
    if not (folder / sha256).exists():
        (folder / sha256).write_bytes(bytes(1024))
    return ModelFiles(as_initializer(location), (FileSpec(name="w", size=size, sha256=sha256),), folder)


def test_onnx_runtime_is_given_files_of_the_model_only(tmp_path: Path) -> None:
    check_weights(content_of(tmp_path, "a" * 64), "m")
    (tmp_path / "b").write_bytes(bytes(1024))
    for location in ("b", "../b", f"./{'a' * 64}", "/etc/passwd", f"{tmp_path}/{'a' * 64}", "b" * 64):
        with pytest.raises(ModelError, match="its weights are in another file"):
            check_weights(content_of(tmp_path, location), "m")
    with pytest.raises(ModelError, match="has 1000 bytes, too few for the weights `w`"):
        check_weights(content_of(tmp_path, "a" * 64, 1000), "m")
    with pytest.raises(ModelError, match="has 1024 bytes, not 2048"):
        check_weights(content_of(tmp_path, "a" * 64, 2048), "m")
    (tmp_path / ("a" * 64)).unlink()
    (tmp_path / ("a" * 64)).symlink_to(tmp_path / "b")
    with pytest.raises(ModelError, match="is damaged"):
        check_weights(content_of(tmp_path, "a" * 64), "m")


def test_weights_with_two_places_are_refused(tmp_path: Path, store: Path) -> None:
    """ONNX's own tools read the last place, and ours the first."""
    content = content_of(tmp_path, "a" * 64)
    graph = onnx.load_from_string(content.graph)
    graph.graph.initializer[0].external_data.add(key="location", value="b" * 64)
    (tmp_path / ("b" * 64)).write_bytes(bytes(2048))
    for read in (check_weights, one_file):
        with pytest.raises(ModelError, match=r"the weights `.*` have two places: export it again"):
            read(ModelFiles(graph.SerializeToString(), content.files, tmp_path), "m")


def test_a_name_of_weights_that_is_no_text_is_one_line(tmp_path: Path, store: Path) -> None:
    path = large_model(tmp_path / "m", 1, "m")
    path.write_bytes(path.read_bytes().replace(b"m.onnx_data", b"m.onnx_dat\xff"))
    assert "its weights are in m.onnx_dat\ufffd: No such file" in refused(path)


@pytest.mark.parametrize("name", ["../w", "a/b", "..", ".hidden", "a\\b", "", "a\n", "x" * 300, "é"])
def test_names_of_files_are_no_paths(name: str) -> None:
    with pytest.raises(ValidationError, match="takes letters"):
        FileSpec(name=name, size=1, sha256="a" * 64)


def test_two_files_of_one_name_are_no_model() -> None:
    files = [{"name": "w", "size": 1, "sha256": digit * 64} for digit in "ab"]
    for kind in (ModelCard, ModelSpec):
        with pytest.raises(ValidationError, match="two files have the same name"):
            kind.model_validate({"name": "m", "inputs": (), "outputs": (), "sha256": "c" * 64, "files": files})


def test_builders_of_engines_get_one_file_or_say_why_not(tmp_path: Path, store: Path) -> None:
    path = large_model(tmp_path / "m", 1)
    added(path, "--name", "m")
    spec, content = own_model("m")
    whole = one_file(content, "m")
    alone = spec.model_copy(update={"files": ()})
    answer = OnnxRuntimeSession(whole, alone).run({"images": PIXELS})["features"]
    np.testing.assert_allclose(answer, plain_answer(path, PIXELS), rtol=0, atol=1e-6)
    large = content_of(tmp_path, "a" * 64, 3_000_000_000)
    with (tmp_path / ("a" * 64)).open("r+b") as file:
        file.truncate(3_000_000_000)
    with pytest.raises(ModelError, match=r"model m has 3 GB with its weights, and engines are built of one file"):
        one_file(large, "m")
