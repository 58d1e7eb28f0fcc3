"""Ctrl-C while a command imports a C extension: one line and exit code 130, whatever the extension makes of it."""

import os
import subprocess
from pathlib import Path

import pytest

from schemas.errors import ExitCode
from tests.cli import COMMAND, environment
from tests.clips import real_clip

# Python imports this module first. SIGINT comes when `MODULE` begins to be imported; a KeyboardInterrupt in it becomes
# an ImportError without a cause, as of `import_array` of NumPy and of the modules of pybind11
SITE = """
import os, signal, sys
from importlib.machinery import PathFinder

class Interrupted:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != os.environ["MODULE"]:
            return None
        sys.meta_path.remove(Interrupted)
        spec = PathFinder.find_spec(name, path)
        loaded = spec.loader.exec_module

        def exec_module(module):
            stopped = False
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                stopped = True
            if stopped:
                raise ImportError("initialization failed")
            loaded(module)

        spec.loader.exec_module = exec_module
        return spec

if sys.orig_argv[1:3] == ["-m", "cli"]:
    sys.meta_path.insert(0, Interrupted)
"""


CLIP = real_clip("bikes")


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("onnxruntime", ("doctor",)),
        ("av", ("doctor",)),
        ("numpy", ("doctor",)),
        ("av", ("run", "fingerprint", CLIP, "--workers", "1")),
        ("onnx", ("plan", "fingerprint", CLIP)),
        ("onnxruntime", ("profile", "cpu")),
        ("PIL._imaging", ("model", "list")),
        ("onnx", ("model", "show", "shotchange")),
        ("onnxruntime", ("engine", "check")),
        ("pydantic_core", ("pipelines", "list")),
    ],
    ids=lambda given: given if isinstance(given, str) else given[0],
)
def test_a_command_that_is_interrupted_in_an_import_says_that_alone(
    module: str, arguments: tuple[str | Path, ...], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    scratch = tmp_path_factory.mktemp("scratch")  # its path is short enough for sockets
    (tmp_path / "sitecustomize.py").write_text(SITE)
    env = environment() | {"MODULE": module, "TMPDIR": str(scratch), "RIGFLOW_CACHE": str(tmp_path / "cache")}
    env["PYTHONPATH"] = os.pathsep.join((str(tmp_path), env["PYTHONPATH"]))
    words = [*COMMAND, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env=env, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (ExitCode.INTERRUPTED, "rigflow: interrupted\n")
    assert "initialization failed" not in done.stdout
