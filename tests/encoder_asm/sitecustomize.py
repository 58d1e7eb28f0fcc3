"""Has encoders use the instruction set TEST_ASM; Python runs this at its start if PYTHONPATH names this folder."""

import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_MODULE = "engines.outputs.software"


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
            asm = os.environ["TEST_ASM"]
            # without AVX2, rigflow has SVT-AV1 use its kernels in C
            of_encoders = {"X264_PARAMS": asm, "X265_PARAMS": asm, "SVT_AV1_PARAMS": "c" if asm == "sse2" else asm}
            for name, value in of_encoders.items():
                setattr(module, name, f"{getattr(module, name)}:asm={value}")

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _Finder())
