"""Optional packages, the extras of pyproject.toml: what to type where one is missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from schemas.errors import PluginMissing


@dataclass(frozen=True, slots=True)
class Needs:
    """The modules of other packages that a backend or an operator imports, and the extra that has them."""

    modules: Sequence[str]
    extra: str

    def check(self, what: str) -> None:
        """Import the modules. Raises PluginMissing: work of `what` goes to workers that have them."""
        for module in self.modules:
            imported(module, what, self.extra)


def imported(module: str, what: str, extra: str) -> Any:
    """Return a module that `what` needs. Raises PluginMissing where it cannot be imported."""
    try:
        return import_module(module)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)
        why = "which is not installed here" if missing else f"which cannot be imported here ({error})"
        raise PluginMissing(f"{what} needs the package {module}, {why}", install_extra(extra)) from error


def install_extra(name: str) -> str:
    """Return how to install an extra beside an installed rigflow."""
    return f"install the extra {name}: pip install 'rigflow[{name}]'"
