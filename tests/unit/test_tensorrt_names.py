"""The names of TensorRT that rigflow uses, held against the bindings of each release that it is to work with."""

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from engines.inference.bindings import DTYPES, installed
from tests.tensorrt_names import names_of, table

ROOT = Path(__file__).parents[2]
SOURCES = ("engines/building/builder.py", "engines/inference/tensorrt.py", "engines/inference/bindings.py")
# what a variable of these names holds; attributes of the rest are not TensorRT's
HOLDS = {
    "trt": "", "_trt": "", "builder": "Builder", "network": "INetworkDefinition", "parser": "OnnxParser",
    "config": "IBuilderConfig", "optimization": "IOptimizationProfile", "tensor": "ITensor",
    "_runtime": "Runtime", "_engine": "ICudaEngine", "_context": "IExecutionContext",
}  # fmt: skip
ONLY_IN = {  # asked for by hasattr, or only where there is a cross-builder
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": {"8", "10"},
    "BuilderFlag.FP16": {"8", "10"},
    "BuilderFlag.INT8": {"8", "10"},
    ".ComputeCapability": {"rtx"},
    "IBuilderConfig.num_compute_capabilities": {"rtx"},
    "IBuilderConfig.set_compute_capability": {"rtx"},
}


def releases() -> dict[str, dict[str, list[str]]]:
    """The table of the wheels, and the installed TensorRT-RTX itself."""
    found = table()
    if installed("tensorrt_rtx"):
        found["rtx"] = names_of(import_module("tensorrt_rtx"))
    return found


def used() -> Iterator[str]:
    """`Class.name` for each attribute of a TensorRT object in our sources."""
    for source in SOURCES:
        for node in ast.walk(ast.parse((ROOT / source).read_text())):
            if not isinstance(node, ast.Attribute):
                continue
            base = node.value
            if (
                isinstance(base, ast.Attribute)
                and isinstance(base.value, ast.Name)
                and base.value.id in ("trt", "flags")
            ):
                yield f"{base.attr}.{node.attr}"
            name = base.id if isinstance(base, ast.Name) else base.attr if isinstance(base, ast.Attribute) else ""
            if name == "flags":
                yield f"NetworkDefinitionCreationFlag.{node.attr}"
            elif name in HOLDS:
                yield f"{HOLDS[name]}.{node.attr}"
    yield from ("BuilderFlag.FP16", "BuilderFlag.INT8")  # by getattr
    yield from (f"DataType.{name}" for name in DTYPES if name != "INT64")


USED = sorted(name for name in set(used()) if ".__" not in name)


def test_the_sources_use_what_they_should() -> None:
    assert len(USED) > 35
    assert {
        "Builder.build_serialized_network",
        "IExecutionContext.execute_async_v3",
        "Runtime.deserialize_cuda_engine",
    } <= {*USED}


@pytest.mark.parametrize("release", releases())
def test_every_name_is_in_the_bindings_of(release: str) -> None:
    names = releases()[release]
    kind = release.partition(".")[0]
    for each in USED:
        where, _, name = each.partition(".")
        if each in ONLY_IN and kind not in ONLY_IN[each]:
            assert name not in names.get(where, ()), f"{each} came to {release}: is the way around it still right?"
        else:
            assert name in names.get(where, ()), f"{release} has no {each}"
