"""The fields of all messages, as docs/messages.md writes them."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from schemas.arrays import ArraySpec
from schemas.jobs import JobRef, Key, Manifest
from schemas.media import CodecParameters, Item, MediaInfo
from schemas.messages import CollectRequest
from schemas.parts import PartMessage, PartMeta
from schemas.results import Attempt, Delta, Done, Failure, Result
from schemas.segments import Fragment, Segment, TrackInfo

MODELS: Mapping[str, type[BaseModel]] = {
    each.__name__: each
    for each in (
        *(Result, Failure, Done, Delta, Fragment, Manifest),
        *(PartMeta, Key, JobRef, MediaInfo, Item, ArraySpec, Attempt, TrackInfo),
        *(Segment, PartMessage, CollectRequest, CodecParameters),
    )
}
_WORDS = {"integer": "int", "number": "float", "string": "text", "boolean": "bool"}


def type_of(model: type[BaseModel]) -> dict[str, tuple[str, str]]:
    """Each field of a model: its type and its default, in the words of the document."""
    schema = model.model_json_schema()
    needed, properties = schema.get("required", ()), schema["properties"]
    return {name: (_type(each), "" if name in needed else _default(each)) for name, each in properties.items()}


def _default(schema: Mapping[str, Any]) -> str:
    default = schema.get("default", {})  # a factory makes an empty map
    if default in ([], {}):
        return "none"
    if default is None or isinstance(default, bool):
        return "null" if default is None else str(default).lower()
    return f"{default:g}" if isinstance(default, int | float) else str(default) or '""'


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return f"[{name}](#{name.lower()})" if name in MODELS else "any JSON" if name == "JsonValue" else "text"
    if "anyOf" in schema:
        kinds = [_type(each) for each in schema["anyOf"]]
        return f"{kinds[0]} or null" if kinds[-1] == "null" else " or ".join(kinds)
    kind = schema.get("type", "any JSON")
    if kind == "array":
        if "prefixItems" in schema:
            return f"[{', '.join(_type(each) for each in schema['prefixItems'])}]"
        return f"list of {_type(schema['items'])}"
    if kind == "object":
        return f"map of {_type(schema['additionalProperties'])}"
    return _WORDS.get(str(kind), str(kind))
