"""docs/extending.md: its package is installed from the text of the document, and its pipeline runs on real workers."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from engines import registry
from engines.options import check_options
from engines.planned import Tensor
from pipelines.registry import builtin_pipeline
from schemas.errors import ModelError, PipelineError
from schemas.pipeline import parse_pipeline
from tests.clips import Clip, make_clip
from tests.example_plugin import BLOCKS, PIPELINE, forget, install, worker_with
from tests.fleet import ONE_WORKER, Fleet
from workers.definitions import find_models

THREE_WORKERS = (("decode",), ("resize", "brightness"), ("encode", "split", "collect"))
SHOWN = re.compile(r"(\d+)\n(\S+) --> (\S+)\n([\d.]+)\n\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path, with the package of the document."""
    folder = tmp_path / "site"
    install(folder)
    monkeypatch.syspath_prepend(str(folder))
    forget()
    yield folder
    forget()


def seconds(timestamp: str) -> float:
    hours, minutes, rest = timestamp.replace(",", ".").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


def test_its_pipeline_gives_equal_results_on_one_worker_and_on_three(site: Path, tmp_path: Path) -> None:
    spec = parse_pipeline(PIPELINE, "brightness.toml").model_copy(update={"segment_s": 0.5})
    clip = make_clip(tmp_path, Clip(frames=50, gop=10))
    written = []
    for name, stages in (("one", ONE_WORKER), ("three", THREE_WORKERS)):
        with Fleet(stages, tmp_path / "cache", entry=worker_with(site)) as fleet:
            [outcome] = fleet.run(spec, [clip], tmp_path / name)
        assert outcome.ok, outcome
        assert outcome.done is not None
        [file] = outcome.done.files
        written.append((tmp_path / name / file).read_text())
    assert written[0] == written[1]
    shown = SHOWN.findall(written[0])
    assert "".join(SHOWN.sub("", written[0])) == ""
    assert [int(number) for number, *_ in shown] == list(range(1, 1 + len(shown)))
    assert [seconds(start) for _, start, *_ in shown] == pytest.approx([0.2 * n for n in range(len(shown))], abs=1e-3)
    with av.open(clip) as container:  # each tick shows the last frame at or before it
        frames = [frame.to_ndarray(format="gray").mean() / 255 for frame in container.decode(video=0)]
    expected = [1.5 * frames[round(0.2 * n * 25)] for n in range(len(shown))]
    np.testing.assert_allclose([float(value) for *_, value in shown], expected, atol=0.06)  # limited range to full


def test_its_backend_answers_as_onnx_runtime_does(site: Path, tmp_path: Path) -> None:
    spec, clip = builtin_pipeline("fingerprint"), make_clip(tmp_path, Clip(frames=50, gop=10))
    found = []
    for backend in ("onnxruntime", "reference"):
        with Fleet(ONE_WORKER, tmp_path / backend, entry=worker_with(site), backend=backend) as fleet:
            [outcome] = fleet.run(spec, [clip], tmp_path / "out")
        assert outcome.ok, outcome
        assert outcome.done is not None
        with np.load(outcome.target.parent / outcome.done.files[0]) as arrays:
            found.append(arrays["descriptor"])
    assert len(found[0]) > 0
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)
    assert not np.array_equal(found[1], found[0]), "another implementation rounds otherwise"


def test_what_does_not_fit_is_said_before_any_work(site: Path) -> None:
    colour = PIPELINE.replace('layout = "gray"', 'layout = "rgb"')
    with pytest.raises(PipelineError, match="stage `brightness` needs gray pixels"):
        find_models(parse_pipeline(colour, "p"), None)
    with pytest.raises(PipelineError, match="srt needs an array `loudness`"):
        find_models(parse_pipeline(PIPELINE.replace('"brightness" }', '"loudness" }'), "p"), None)
    [error] = check_options(PIPELINE.replace("gain", "again"), "p")
    assert re.match(r"p, line \d+, stage.2.again: there is no such option", str(error))


def test_its_head_answers(site: Path) -> None:
    head = registry.load("heads", "margin")({}, {"scores": Tensor("float32", ("N", 3))}, None)
    made = head.decode({"scores": np.float32([[0.1, 0.7, 0.2], [3, 1, 2]])}, ())
    np.testing.assert_allclose(made["margin"], [0.5, 1.0], atol=1e-6)
    assert head.plan() == {"margin": Tensor("float32", ("N",))}
    with pytest.raises(ModelError, match="head margin, option best"):
        registry.load("heads", "margin")({"best": 1}, {"scores": Tensor("float32", ("N", 3))}, None)


def test_each_plugin_is_one_file_of_few_lines() -> None:
    code = {name: text for name, text in BLOCKS.items() if name.endswith(".py")}
    assert len(code) == len(re.findall(r'= "rigflow_example', BLOCKS["pyproject.toml"]))
    for name, text in code.items():
        lines = [line for line in text.splitlines() if line and not line.startswith(("import", "from"))]
        assert ast.get_docstring(ast.parse(text)), name
        assert len(lines) <= 30, f"{name} has {len(lines)} lines"
