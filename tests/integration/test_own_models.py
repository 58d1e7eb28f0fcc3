"""Models that users bring, on real workers: a changed card, values that are no numbers, weights in another file."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from onnx import helper

from engines.models.catalogue import load_model
from schemas.jobs import Priority
from schemas.pipeline import PipelineSpec, parse_pipeline
from tests.cli import rigflow
from tests.clips import Clip, make_clip
from tests.fleet import ONE_WORKER, Fleet, Silent
from tests.onnx_graphs import BODY, FLOAT, UINT8, as_constant, as_initializer, model_of, value
from workers.run import run_jobs

MODELS = Path(".local/share/rigflow/models")  # in a user's home
REDUCE = helper.make_node("ReduceMean", ["f"], ["mean"], axes=[1, 2], keepdims=0)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user's models."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / MODELS
    folder.mkdir(parents=True)
    return folder


def pipeline(encode: str = "npz", size: int = 8, layout: str = "gray") -> PipelineSpec:
    """Frames of 8 x 8 in gray through the model `m`, in segments of half a second."""
    return parse_pipeline(
        f"""
        name = "p"
        media = "video"
        segment_s = 0.5
        [[stage]]
        kind = "decode"
        [[stage]]
        kind = "resize"
        size = [{size}, {size}]
        layout = "{layout}"
        [[stage]]
        kind = "infer"
        model = "m"
        [[stage]]
        kind = "encode"
        format = "{encode}"
        """,
        "p.toml",
    )


def two_outputs() -> bytes:
    """`pixels [N, 8, 8] uint8` -> `mean [N]`, `less [N]`, its negative, both float32."""
    nodes = [BODY[0], REDUCE, helper.make_node("Neg", ["mean"], ["less"])]
    outputs = [value("mean", FLOAT, ["N"]), value("less", FLOAT, ["N"])]
    return model_of(nodes, [value("pixels", UINT8, ["N", 8, 8])], outputs)


def no_numbers() -> bytes:
    """`pixels [N, 8, 8] uint8` -> `mean [N]`, and `ratio [N]`, infinite or NaN, both float32."""
    nodes = [
        BODY[0],
        REDUCE,
        helper.make_node("Sub", ["mean", "mean"], ["zero"]),
        helper.make_node("Div", ["mean", "zero"], ["ratio"]),
    ]
    outputs = [value("mean", FLOAT, ["N"]), value("ratio", FLOAT, ["N"])]
    return model_of(nodes, [value("pixels", UINT8, ["N", 8, 8])], outputs)


def test_a_changed_card_of_the_same_graph_is_used_at_once(models: Path, tmp_path: Path) -> None:
    (models / "m.onnx").write_bytes(two_outputs())
    clip = make_clip(tmp_path, Clip(frames=20))
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        for name in ("mean", "less"):
            (models / "m.toml").write_text(f'[[outputs]]\nname = "{name}"\ndtype = "float32"\nshape = ["N"]\n')
            [outcome] = fleet.run(pipeline(), [clip], tmp_path / name)
            assert outcome.ok, outcome.error
            with np.load(f"{outcome.target}.npz") as found:
                assert set(found.files) == {"times", name}


@pytest.mark.parametrize("encode", ["npz", "jsonl"])
def test_values_that_are_no_numbers_are_counted_in_the_notes(models: Path, tmp_path: Path, encode: str) -> None:
    (models / "m.onnx").write_bytes(no_numbers())
    clip = make_clip(tmp_path, Clip(frames=60))
    with Fleet(ONE_WORKER * 2, tmp_path / "cache") as fleet:
        [outcome] = fleet.run(pipeline(encode), [clip], tmp_path / "out")
    assert outcome.ok, outcome.error
    assert outcome.done is not None
    assert outcome.done.segments > 1
    assert outcome.done.notes == ("output `ratio`: 60 of 60 windows have values that are not finite",)
    if encode == "jsonl":
        line = json.loads(Path(f"{outcome.target}.jsonl").read_text().splitlines()[0])
        assert line["ratio"] is None


@pytest.mark.parametrize("made", [as_initializer, as_constant])
async def test_a_worker_reads_no_weights_that_another_client_names(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Callable[[str], bytes]
) -> None:
    """A client that is not ours publishes a graph whose weights would be a file in the worker's folder."""
    (models / "m.onnx").write_bytes(two_outputs())
    card, _ = load_model(models / "m.onnx")
    body = made("secret.bin")
    card = card.model_copy(update={"sha256": hashlib.sha256(body).hexdigest()})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(b"SECRET..".ljust(1024, b"."))
    clip = make_clip(tmp_path, Clip(frames=10))
    out = tmp_path / "out"
    out.mkdir()
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        [outcome] = await run_jobs(
            fleet.settings, pipeline(), {"m": (card, body)}, [clip], out, Priority.BULK, Silent()
        )
    assert outcome.done is not None
    assert "its weights are in another file, secret.bin" in outcome.done.failures[0]
    assert os.listdir(out) == []


def planes_of_floats() -> bytes:
    """As frameworks export it: `images [N, 3, 32, 32] float32`, BGR and normalised, -> `mean [N, 3]`."""
    node = helper.make_node("ReduceMean", ["images"], ["mean"], axes=[2, 3], keepdims=0)
    return model_of([node], [value("images", FLOAT, ["N", 3, 32, 32])], [value("mean", FLOAT, ["N", 3])])


@pytest.mark.parametrize("command", ["beside", "import"])
def test_a_model_as_it_was_exported_needs_a_card_and_nothing_else(models: Path, tmp_path: Path, command: str) -> None:
    folder = tmp_path if command == "import" else models
    (folder / "m.onnx").write_bytes(planes_of_floats())
    (folder / "m.toml").write_text(
        '[[inputs]]\nname = "images"\nreads = "pixels"\ncolours = "bgr"\n'
        "mean = [103.53, 116.28, 123.675]\nstd = [57.375, 57.12, 58.395]\n"
    )
    if command == "import":
        rigflow("model", "add", folder / "m.onnx", "--yes", HOME=str(tmp_path / "home"))
    clip = make_clip(tmp_path, Clip(frames=20, size=(32, 32)))
    with av.open(str(clip)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    normalised = (frames[..., ::-1] - np.float32([103.53, 116.28, 123.675])) / np.float32([57.375, 57.12, 58.395])
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        [outcome] = fleet.run(pipeline(size=32, layout="rgb"), [clip], tmp_path / "out")
        assert outcome.ok, outcome.error
        with np.load(f"{outcome.target}.npz") as found:
            np.testing.assert_allclose(found["mean"], normalised.mean((1, 2)), atol=0.02)
