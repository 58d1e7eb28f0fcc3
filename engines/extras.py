"""Optional packages, the extras of pyproject.toml: what to type where one is missing."""

import json
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from schemas.errors import PluginMissing

MADE_BY_MAKE = "rigflow-venv"  # the folder of the environment of `make install`


@dataclass(frozen=True, slots=True)
class Needs:
    """The modules of other packages that a backend or an operator imports, and the extra that has them."""

    modules: Sequence[str]
    extra: str

    def check(self, what: str) -> None:
        """Import the modules. Raises PluginMissing: work of `what` goes to workers that have them."""
        for module in self.modules:
            imported(module, what, self.extra)

    @property
    def missing(self) -> str:
        """How to install the extra; "" where its modules are there. Nothing is imported."""
        return "" if all(map(find_spec, self.modules)) else install_extra(self.extra)


LANGUAGE_MODELS = Needs(("onnxruntime_genai", "jinja2"), "llm")
PROMPTS = Needs(("tokenizers",), "imagine")
SEARCH = Needs(("tokenizers",), "search")
TRANSCRIPTION = Needs(("ctranslate2", "tokenizers"), "stt")
TRANSCRIPTION_BY_ONNX = Needs(("tokenizers",), "stt")
PHONEMES = Needs(("espeakng_loader",), "phonemes")
CONVERSION = Needs(("torch", "spandrel"), "convert")  # of weights of torch, as they are added
EXPORT = Needs(("torch", "pytorchvideo"), "export")


def imported(module: str, what: str, extra: str) -> Any:
    """Return a module that `what` needs. Raises PluginMissing where it cannot be imported."""
    try:
        return import_module(module)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)
        why = "which is not installed here" if missing else f"which cannot be imported here ({error})"
        raise PluginMissing(
            f"{what} needs the package {module.partition('.')[0]}, {why}", install_extra(extra)
        ) from error


def install_extra(name: str) -> str:
    """Return how to install an extra: the command for the way in which this rigflow was installed."""
    return f"install the extra {name}: {extra_command(name, Path(sys.prefix), _source())}"


def pip_install(*words: str) -> str:
    """Return the command that installs packages into the environment of this rigflow."""
    return f"{_installer(Path(sys.prefix))} {shlex.join(words)}"


def extra_command(name: str, environment: Path, source: tuple[Path | None, bool]) -> str:
    """Return the command that adds an extra to an environment.

    `source`: the checkout that its rigflow was installed from, if that is known, and whether its files are used there.
    """
    folder, editable = source
    what = shlex.quote(f"{folder or 'rigflow'}[{name}]")
    if folder is not None and environment.name == MADE_BY_MAKE:
        return f"make -C {shlex.quote(str(folder))} install EXTRAS={shlex.quote(f'[{name}]')}"
    if (environment / "uv-receipt.toml").exists():
        return f"uv tool install --force {what}"
    if (environment / "pipx_metadata.json").exists():
        return f"pipx install --force {what}"
    return f"{_installer(environment)} {'-e ' * editable}{what}"


def _installer(environment: Path) -> str:
    python = shlex.quote(str(environment / "bin" / "python"))
    return f"{python} -m pip install" if find_spec("pip") else f"uv pip install --python {python}"


def _source() -> tuple[Path | None, bool]:
    """The folder that this rigflow was installed from, and whether in place."""
    here = Path(__file__).parents[1]
    if (here / "pyproject.toml").exists():
        return here, True
    with suppress(PackageNotFoundError, ValueError):
        found = json.loads(distribution("rigflow").read_text("direct_url.json") or "{}")
        url = urlsplit(str(found.get("url", "")))
        return (Path(unquote(url.path)) if url.scheme == "file" else None), False
    return None, False
