"""`rigflow pipelines`, and the pipeline file that it prints and checks."""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest

from cli.pipelines import to_toml
from pipelines.registry import builtin_pipeline, builtin_pipelines
from schemas.pipeline import EncodeStage, OperatorStage, PipelineSpec, parse_pipeline
from schemas.pipeline_check import check_pipeline
from tests.answering import graph
from tests.cli import rigflow

DOCS = Path(__file__).parents[2] / "docs"
DAMAGED = """\
name = "damaged"
media = "vidio"

[[stage]]
kind = "decode"
fps = 0
stream = -1

[[stage]]
kind = "resize"
size = [32]
widnow = { frames = 5 }

[[stage]]
kind = "infer"

[[stage]]
kind = "infer"
name = "second"
model = "fingerprnt"
reads = 3

[[stage]]
kind = "infer"
model = "../fingerprint"

[[stage]]
kind = "encode"
format = "gif"

[[stage]]
kind = "encode"
format = "video"
options = { crf = "low", speed = 3 }
"""


@pytest.mark.parametrize("name", builtin_pipelines())
def test_what_show_prints_is_the_same_pipeline(name: str) -> None:
    printed = rigflow("pipelines", "show", name).stdout
    assert parse_pipeline(printed, name) == builtin_pipeline(name)


def test_printing_keeps_every_kind_of_value() -> None:
    spec = builtin_pipeline("fingerprint")
    infer = OperatorStage(kind="infer", name="two", model="m@1", reads={"x.y": "pixels"}, keeps=("a", "b"), max_batch=3)
    options: dict[str, bool | int | float | str] = {"a": True, "b": 2, "c": 0.5, "d": 'quo"ted \\ lines\n'}
    encode = EncodeStage(kind="encode", format="jsonl", options=options)
    changed = {"stage": (*spec.stage[:-1], infer, encode), "segment_s": 2.5, "description": "Größe"}
    odd = PipelineSpec.model_validate(spec.model_copy(update=changed).model_dump())
    assert parse_pipeline(to_toml(odd), "odd") == odd


def test_list_has_all_that_comes_with_rigflow_in_a_narrow_window() -> None:
    lines = rigflow("pipelines", "list", COLUMNS="80").stdout.splitlines()
    assert lines[0].split() == ["pipeline", "takes", "ready", "description"]
    assert max(map(len, lines)) <= 80
    column = lines[0].index("description")
    for name in builtin_pipelines():
        spec = builtin_pipeline(name)
        at = next(number for number, line in enumerate(lines) if line.split()[:1] == [name] and line[0] != " ")
        found = re.fullmatch(rf"{name} +{', '.join(spec.media)} +(yes|no) +", lines[at][:column])
        assert found, lines[at]
        further = itertools.takewhile(lambda line: not line[:column].strip(), lines[at + 1 :])
        assert " ".join(line[column:] for line in (lines[at], *further)) == spec.description


def test_list_says_which_pipelines_have_their_models(tmp_path: Path) -> None:
    ended = rigflow("pipelines", "list", HOME=str(tmp_path))
    ready = dict(re.findall(r"^(\S+) .* (yes|no) +", ended.stdout, re.MULTILINE))
    assert (ready["scenes"], ready["upscale2x"], ready["detect"]) == ("yes", "yes", "no")
    assert "names it, and says where to get it" in ended.stderr
    missing = {each["name"]: each["missing"] for each in json.loads(rigflow("pipelines", "list", "--json").stdout)}
    assert (missing["scenes"], missing["summarise"][-1]) == ([], "chat-model")


def test_check_names_everything_that_is_wrong_by_line_and_field(tmp_path: Path) -> None:
    file = tmp_path / "damaged.toml"
    file.write_text(DAMAGED)
    ended = rigflow("pipelines", "check", file)
    assert ended.returncode == 2
    found = [line.removeprefix(f"{file}, ").partition(": ")[0] for line in ended.stdout.splitlines()]
    assert found == [
        "line 1, the file",  # the order of its stages
        "line 1, the file",  # the names of its stages
        "line 2, media",
        "line 6, stage.0.fps",
        "line 7, stage.0.stream",
        "line 9, stage.1.size.1",
        "line 12, stage.1.widnow",
        "line 14, stage.2.model",  # missing: the line of its stage, not that of the next stage's model
        "line 20, stage.3.model",
        "line 21, stage.3.reads",
        "line 25, stage.4.model",
        "line 29, stage.5.format",
        "line 34, stage.6.options.crf",
        "line 34, stage.6.options.speed",
    ]


def test_check_looks_at_models_and_options_too(tmp_path: Path) -> None:
    text = to_toml(builtin_pipeline("fingerprint"))
    for wrong, output in (
        (text.replace("[32, 32]", "[48, 32]"), "model `fingerprint` wants `pixels`"),
        (text.replace('"fingerprint"\nmax', '"nosuch"\nmax'), "model nosuch is missing"),
        (text + "options = { nosuch = 1 }\n", "nosuch"),
    ):
        file = tmp_path / "mine.toml"
        file.write_text(wrong)
        ended = rigflow("pipelines", "check", file)
        assert ended.returncode == 2, wrong
        assert ended.stdout.startswith(f"{file}")
        assert output in ended.stdout
        assert ended.stdout.count("\n") == 1


def test_check_is_content_with_a_good_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(to_toml(builtin_pipeline("scenes")))
    ended = rigflow("pipelines", "check", file)
    assert (ended.returncode, ended.stdout) == (0, f"{file}: fine\n")


def test_check_of_what_is_no_file_or_no_toml(tmp_path: Path) -> None:
    missing = rigflow("pipelines", "check", tmp_path / "no.toml")
    assert missing.returncode == 2
    assert "No such file" in missing.stderr
    (tmp_path / "odd.toml").write_text("name = \n")
    odd = rigflow("pipelines", "check", tmp_path / "odd.toml")
    assert odd.returncode == 2
    assert "not TOML" in odd.stdout
    assert "line 1" in odd.stdout


def test_the_example_in_the_docs_is_a_good_pipeline() -> None:
    text = (DOCS / "pipelines.md").read_text()
    examples = [block.partition("```")[0] for block in text.split("```toml\n")[1:]]
    assert examples
    for example in examples:
        assert check_pipeline(example, "docs/pipelines.md") == []


def test_the_docs_draw_the_boxes_of_a_model_of_ones_own(tmp_path: Path) -> None:
    """And the errors of a pipeline without the pictures to draw on say what to add."""
    rows = np.zeros((1, 6, 525), np.float32)
    (tmp_path / "yolov8n.onnx").write_bytes(graph({"output0": rows}))
    (tmp_path / "yolov8n.toml").write_text('[[heads]]\nkind = "detect"\ndecoder = "yolov8"\n')
    text = (DOCS / "pipelines.md").read_text().partition("### Boxes of a model of your own")[2]
    boxes, drawn = (block.partition("```")[0] for block in text.split("```toml\n")[1:3])
    resize = '[[stage]]\nkind = "resize"\nlayout = "planes"\n\n'
    keeps = 'keeps = ["plane0", "plane1", "plane2", "plane3"]\n'
    for pipeline, answer in (
        (boxes, "fine"),
        (drawn, "fine"),
        (drawn.replace(keeps, ""), 'have a resize stage with layout = "planes" behind decode, and keeps = ["plane0"'),
        (drawn.replace(resize, ""), "there is only `index`: put a resize stage, which makes it, before this one"),
    ):
        file = tmp_path / "mine.toml"
        file.write_text(pipeline)
        assert answer in rigflow("pipelines", "check", file).stdout


def test_the_docs_explain_every_field() -> None:
    from schemas.pipeline import DecodeStage, Window

    text = (DOCS / "pipelines.md").read_text()
    for spec in (PipelineSpec, DecodeStage, Window, OperatorStage, EncodeStage):
        for field in spec.model_fields:
            assert f"`{field}`" in text, f"docs/pipelines.md says nothing of {spec.__name__}.{field}"
