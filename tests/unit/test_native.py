"""C files that are compiled by the machine's compiler: kept, loaded, and left out where there is none."""

import ctypes
import logging
from pathlib import Path

import numpy as np
import pytest

from engines import native
from engines.heads import suppression
from engines.heads.suppression import BOX_OVERLAP, suppress
from tests.host_gpu import COMPILER

compiled = pytest.mark.skipif(COMPILER is None, reason="no C compiler here")
_BOXES = np.array([[0, 0, 8, 8], [0, 1, 8, 9], [20, 0, 28, 8]], np.float32)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "three.c"
    path.write_text("int three(void) { return 3; }\n")
    return path


def _no_compiler(name: str) -> None:
    return None


@compiled
def test_a_library_is_compiled_once_and_kept_in_the_cache_folder(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = native.library_of(source, tmp_path / "cache")
    assert made == tmp_path / "cache" / "kernels" / native.name_of(source)
    assert ctypes.CDLL(str(made)).three() == 3
    monkeypatch.setattr(native.shutil, "which", _no_compiler)
    assert native.library_of(source, tmp_path / "cache") == made
    beside = source.with_name(made.name)
    made.rename(beside)
    assert native.library_of(source, tmp_path / "cache") == beside


@compiled
def test_a_library_of_an_earlier_source_is_not_used(source: Path, tmp_path: Path) -> None:
    first = native.library_of(source, tmp_path)
    source.write_text("int three(void) { return 1 + 2; }\n")
    assert native.library_of(source, tmp_path) != first


@compiled
@pytest.mark.parametrize("kept", [True, False])
def test_a_library_is_loaded_with_and_without_a_cache_folder(
    source: Path, tmp_path: Path, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "_kept", [tmp_path / "cache"] if kept else [])
    library = native.loaded(source, "slower")
    assert library is not None
    assert library.three() == 3
    assert (tmp_path / "cache").exists() == kept


def test_without_a_compiler_boxes_are_suppressed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    copy = tmp_path / "suppression.c"  # beside it lies nothing that was precompiled
    copy.write_bytes(suppression._SOURCE.read_bytes())
    monkeypatch.setattr(suppression, "_SOURCE", copy)
    monkeypatch.setattr(native, "_kept", [tmp_path])
    monkeypatch.setattr(native.shutil, "which", _no_compiler)
    assert suppress(_BOXES, np.zeros(3, np.int64), 0.5, 9, BOX_OVERLAP).tolist() == [0, 2]
    [line] = caplog.messages
    assert line == f"{suppression._SLOWER}: no C compiler here (cc, gcc or clang) compiles suppression.c"


def test_a_file_that_is_no_library_is_not_used(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(native, "_kept", [tmp_path])
    damaged = tmp_path / "kernels" / native.name_of(source)
    damaged.parent.mkdir()
    damaged.write_bytes(b"no library")
    assert native.loaded(source, "slower") is None
    assert str(damaged) in caplog.messages[0]
