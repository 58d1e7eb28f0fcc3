"""Has x264 use the instruction set TEST_X264_ASM; Python runs this at its start where PYTHONPATH names this folder."""

import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_MODULE = "engines.outputs.h264"


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the product's module as usual, and adds the instruction set to its parameters after it was loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            module.X264_PARAMS += f":asm={os.environ['TEST_X264_ASM']}"  # type: ignore[attr-defined]

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _Finder())
