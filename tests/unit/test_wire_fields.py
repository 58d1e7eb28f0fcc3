"""What a rolling upgrade rests on: fields of messages and records are never removed, and new ones are optional.

tests/wire_fields.json has the fields of the last release. After a release:
python -m tests.unit.test_wire_fields > tests/wire_fields.json
"""

import importlib
import json
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

import schemas
from schemas.declared import Spec, digest
from schemas.pipeline import OperatorStage, PipelineSpec, Window, parse_pipeline

NOT_SENT = {"schemas.fleet_file", "schemas.rig", "schemas.settings"}  # files of one machine
RELEASED = Path(__file__).parents[1] / "wire_fields.json"
KNOWN: dict[str, dict[str, str]] = json.loads(RELEASED.read_text())


def below(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for sub in kind.__subclasses__():
        yield sub
        yield from below(sub)


def sent() -> dict[str, type[BaseModel]]:
    """Every class of schemas whose values reach other machines, by name."""
    for module in pkgutil.iter_modules(schemas.__path__):
        importlib.import_module(f"schemas.{module.name}")
    found = {each for each in below(BaseModel) if each.__module__.startswith("schemas.")}
    return {each.__name__: each for each in found if each.__module__ not in NOT_SENT and each.__module__ != __name__}


def fields(kind: type[BaseModel]) -> dict[str, str]:
    return {name: "required" if each.is_required() else "optional" for name, each in kind.model_fields.items()}


def problems(kind: type[BaseModel], known: dict[str, str]) -> list[str]:
    """What another version could not read of a class, or would read otherwise."""
    found = [f"{name} is missing" for name in known.keys() - kind.model_fields.keys()]
    for name, each in kind.model_fields.items():
        if each.is_required() and known.get(name) != "required":
            found.append(f"{name} is required, and older versions do not send it")
        if name not in known and issubclass(kind, Spec) and not left_out(each):
            found.append(f"{name} is written when it has its default: older versions refuse it, and revisions change")
    return found


def left_out(field: FieldInfo) -> bool:
    """Whether a field is not written while it has its default."""
    return field.exclude_if is not None and field.exclude_if(field.get_default(call_default_factory=True))


def test_every_class_of_the_last_release_can_be_read_and_written_for_it() -> None:
    now = sent()
    assert KNOWN.keys() <= now.keys()
    assert {name: found for name in KNOWN if (found := problems(now[name], KNOWN[name]))} == {}


class LaterStage(OperatorStage):
    """A stage with a field of a later version, as one is to be added."""

    strength: float = Field(default=1.0, exclude_if=lambda value: value == 1.0)


class CarelessStage(OperatorStage):
    strength: float = 1.0
    needed: int


def test_a_field_that_is_added_carelessly_is_found() -> None:
    known = KNOWN["OperatorStage"]
    assert problems(LaterStage, known) == []
    assert len(problems(CarelessStage, known)) == 3
    assert problems(Window, {**KNOWN["Window"], "removed": "optional"}) == ["removed is missing"]


def test_a_field_that_has_its_default_changes_neither_what_is_written_nor_a_revision() -> None:
    given: dict[str, Any] = {"kind": "resize", "name": "small", "size": [8, 8]}
    now, later = OperatorStage.model_validate(given), LaterStage.model_validate(given)
    assert OperatorStage.model_validate_json(later.model_dump_json()) == now
    assert digest(later.model_dump(mode="json")) == digest(now.model_dump(mode="json"))
    stronger = later.model_copy(update={"strength": 2.0})
    assert digest(stronger.model_dump(mode="json")) != digest(now.model_dump(mode="json"))


SMALL = """
name = "small"
media = "video"

[[stage]]
kind = "decode"
fps = 2.0

[[stage]]
kind = "resize"
size = [8, 8]

[[stage]]
kind = "encode"
format = "npz"
"""


def test_a_revision_is_the_one_that_the_last_release_gave_it() -> None:
    """Jobs of that release are pinned to it."""
    spec = parse_pipeline(SMALL, "small.toml")
    assert spec.revision == PipelineSpec.model_validate_json(spec.model_dump_json()).revision == "b9a6184844bb0771"


if __name__ == "__main__":
    print(json.dumps({name: fields(kind) for name, kind in sorted(sent().items())}, indent=1))
