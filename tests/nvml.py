"""A stand-in for NVIDIA's management library, made of tests/nvml.c: GPUs whose values are files."""

import ctypes
import functools
import subprocess
from pathlib import Path

import pynvml
import pytest

from tests.kept_folders import kept_folder

SOURCE = Path(__file__).with_name("nvml.c")
SOUND = {"limit": 120_000, "least": 60_000, "most": 140_000, "power": 90_000, "temperature": 61, "root": 1, "events": 1}


def uuid(index: int) -> str:
    return f"GPU-00000000-0000-0000-0000-{index:012}"


class FakeGpus:
    """GPUs in a folder: `set` a value of one, `get` it."""

    def __init__(self, folder: Path, count: int = 2) -> None:
        self.folder = folder
        for index in range(count):
            (folder / str(index)).mkdir(parents=True)
            for name, value in SOUND.items():
                self.set(index, name, value)

    def set(self, index: int, name: str, value: int) -> None:
        part = self.folder / str(index) / f"{name}.part"
        part.write_text(str(value))
        part.rename(part.with_suffix(""))

    def get(self, index: int, name: str) -> int:
        return int((self.folder / str(index) / name).read_text())


@functools.cache
def library() -> Path:
    """The library, compiled once a process."""
    made = kept_folder("nvml") / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-w", "-o", made, SOURCE], check=True)
    return made


def fake_gpus(folder: Path, monkeypatch: pytest.MonkeyPatch, count: int = 2) -> FakeGpus:
    """GPUs that `pynvml` finds in this process until the end of the test."""
    gpus = FakeGpus(folder / "nvml", count)
    monkeypatch.setenv("FAKE_NVML", str(gpus.folder))
    monkeypatch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(library())))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    return gpus
