"""Numbers among options: each has a least and a most value, and one beyond them is an error by stage and field."""

import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from cli.app import answer
from engines.models.catalogue import save_model
from engines.registry import GROUPS, load
from schemas.errors import ExitCode
from schemas.model import HeadSpec, InputCard, ModelCard
from schemas.pipeline import PipelineSpec
from tests.answering import graph
from tests.cases import stills

PIPELINE = """
name = "boxes"
media = "image"
[[stage]]
kind = "decode"
[[stage]]
kind = "infer"
name = "find"
model = "dogs"
head = { threshold = 0.3 }
[[stage]]
kind = "encode"
format = "jsonl"
"""


def numbers(schema: Mapping[str, Any], definitions: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    """The path of each number in a JSON schema, with its own schema."""
    if "$ref" in schema:
        yield from numbers(definitions[schema["$ref"].rpartition("/")[2]], definitions, path)
    if schema.get("type") in ("number", "integer"):
        yield path, schema
    for inner in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("prefixItems", ())):
        yield from numbers(inner, definitions, path)
    for name, inner in schema.get("properties", {}).items():
        yield from numbers(inner, definitions, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from numbers(schema[key], definitions, path)


def option_classes() -> Iterator[type[BaseModel]]:
    yield PipelineSpec
    for group in ("heads", "decoders", "operators", "formats", "media"):
        for name in GROUPS[group].classes:
            module = import_module(load(group, name).__module__)
            for each in vars(module).values():
                if inspect.isclass(each) and issubclass(each, BaseModel) and each.__module__ == module.__name__:
                    yield each


def test_each_number_has_a_least_and_a_most_value() -> None:
    endless = set()
    for kind in option_classes():
        schema = kind.model_json_schema()
        for path, each in numbers(schema, schema.get("$defs", {}), kind.__name__):
            least = each.keys() & {"minimum", "exclusiveMinimum", "enum", "const"}
            most = each.keys() & {"maximum", "exclusiveMaximum", "enum", "const"}
            if not (least and most):
                endless.add(path)
    assert not endless


@pytest.fixture
def dogs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pipeline file of a detector with two classes."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    picture = InputCard(name="images", size=(160, 160), layout="nchw", scale=1 / 255)
    head = HeadSpec(kind="detect", options={"decoder": "yolov8", "labels": ["cat", "dog"]})
    card = ModelCard(name="dogs", inputs=(picture,), heads=(head,))
    save_model(tmp_path, card, graph({"output0": np.zeros((1, 6, 525), np.float32)}))
    file = tmp_path / "boxes.toml"
    file.write_text(PIPELINE)
    return file


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("threshold = 2", "head.threshold: should be less than or equal to 1, found 2"),
        ("nms = -1", "head.nms: should be greater than or equal to 0, found -1"),
        ("max = 100000000", "head.max: should be less than or equal to 10000, found 100000000"),
        ("treshold = 0.5", "head.treshold: unknown field"),
        ("labels = ['cat']", "head: head detect: 1 labels for 2 classes"),
    ],
)
def test_check_and_run_refuse_an_option_of_a_head_by_stage_and_field(
    dogs: Path, capsys: pytest.CaptureFixture[str], field: str, reason: str
) -> None:
    (picture,) = stills(dogs.parent, sizes=((8, 8),))
    option, _, value = field.partition(" = ")
    assert answer(["run", str(dogs), str(picture), "--set", f"find.head.{option}={value}"]) == ExitCode.USAGE
    error = capsys.readouterr().err
    assert f"stage find, {reason}" in error
    assert error.count("\n") == 1
    dogs.write_text(PIPELINE.replace("threshold = 0.3", field))
    assert answer(["pipelines", "check", str(dogs)]) == ExitCode.USAGE
    assert f"{dogs}, line 10, stage.1.{reason}" in capsys.readouterr().out
