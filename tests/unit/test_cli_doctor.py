"""`rigflow doctor` on this machine, and on ones that lack something."""

import json
import os
from pathlib import Path

import pytest

from engines.machine import cores, gpus, memory_bytes
from tests.cli import rigflow, rigflow_process

EVERYTHING = [
    "Python",
    "cores",
    "memory",
    "decoders",
    "encoders",
    "ONNX Runtime",
    "broker",
    "store",
    "temporary",
    "GPUs",
]


def test_this_machine_can_run_rigflow(tmp_path: Path) -> None:
    ended = rigflow("doctor", "--store", tmp_path / "not" / "made" / "yet")
    assert ended.returncode == 0, ended.stdout
    for word in (*EVERYTHING, "h264", "av1", "libx264", "nats-server 2.", "CPU", "rigflow can run here"):
        assert word in ended.stdout
    assert not (tmp_path / "not").exists()


def test_json_has_a_finding_for_everything(tmp_path: Path) -> None:
    findings = json.loads(rigflow("doctor", "--json", "--store", tmp_path).stdout)
    assert [finding["what"] for finding in findings] == EVERYTHING
    assert all(finding["advice"] for finding in findings if finding["state"] != "good")


def test_what_is_missing_is_said_with_what_to_do(tmp_path: Path) -> None:
    """A folder in which an import of onnxruntime fails, as it does where its library is missing."""
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libonnxruntime.so.1: cannot open shared object file')")
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    ended = rigflow_process("doctor", "--store", tmp_path, PYTHONPATH=path)
    assert ended.returncode == 1
    assert "libonnxruntime.so.1: cannot open shared object file" in ended.stdout
    assert "install rigflow anew" in ended.stdout
    assert "rigflow cannot run here: 1 to mend" in ended.stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_that_is_not_writable(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    ended = rigflow("doctor", "--store", tmp_path / "store")
    assert ended.returncode == 1
    assert "not writable" in ended.stdout


def test_cores_and_memory_are_what_we_may_use() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)
    assert 0 < memory_bytes() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_gpu_have_names_and_memory() -> None:
    for gpu in gpus():
        assert gpu.name
        assert gpu.memory_bytes > 1 << 30
        assert gpu.capability >= (3, 0)
