"""`rigflow bundle`: what it writes, with small wheels made here; the whole of it, without a network, as a slow test."""

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cli.bundle import gather, package_of, pins_of, without, write_lists
from cli.bundle_profiles import PROFILES
from cli.selftest import RIGHT, check
from schemas.errors import RigflowError
from tests.cli import environment, rigflow, rigflow_process

ROOT = Path(__file__).parents[2]
PASS = "pass: a film of 6 s was decoded, computed and collected on cpu, and the numbers are right\n"
SELFTEST = '#!/bin/sh\necho "selftest $*"\n'


def wheel(folder: Path, name: str, version: str, script: str = "", said: str = "") -> Path:
    """A wheel of one module, and of a script `rigflow`."""
    folder.mkdir(parents=True, exist_ok=True)
    path, info = folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.py", f"said = {said!r}\n")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        if script:
            entry = zipfile.ZipInfo(f"{name}-{version}.data/scripts/rigflow")
            entry.external_attr = 0o100755 << 16
            file.writestr(entry, script)
        file.writestr(f"{info}/RECORD", "")
    return path


def installed(bundle: Path, to: Path) -> subprocess.CompletedProcess[str]:
    """The script of a bundle; pip is that of the environment it makes."""
    words = ["sh", str(bundle / "install.sh"), str(to)]
    given = environment() | {"PYTHON": sys.executable, "PYTHONPATH": ""}
    return subprocess.run(words, capture_output=True, text=True, env=given, check=False)


@pytest.mark.slow
def test_a_bundle_is_installed_by_hash_and_a_changed_wheel_is_not(tmp_path: Path) -> None:
    bundle = tmp_path / "a bundle"
    wheel(bundle / "wheels", "rigflow", "9.9", SELFTEST)
    changed = wheel(bundle / "wheels", "Other_Name", "1.0")
    write_lists(bundle, "cpu", PROFILES["cpu"])
    listed = (bundle / "requirements.txt").read_text()
    assert re.findall(r"(?m)^(\S+) --hash=sha256:[0-9a-f]{64}$", listed) == ["Other_Name==1.0", "rigflow==9.9"]
    done = installed(bundle, tmp_path / "venv")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "selftest selftest --for cpu"), done.stderr
    wheel(changed.parent, "Other_Name", "1.0", said="changed")
    refused = installed(bundle, tmp_path / "venv")
    assert refused.returncode != 0
    assert "DO NOT MATCH THE HASHES" in refused.stderr


def test_the_list_has_the_hash_of_each_wheel(tmp_path: Path) -> None:
    files = [wheel(tmp_path / "wheels", name, "9.9") for name in ("rigflow", "Other_Name")]
    write_lists(tmp_path, "cpu", PROFILES["cpu"])
    hashes = {path.name.split("-")[0]: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    listed = (tmp_path / "requirements.txt").read_text().splitlines()
    assert listed == [f"{name}==9.9 --hash=sha256:{hashes[name]}" for name in ("Other_Name", "rigflow")]
    assert not (tmp_path / "last.txt").exists()


def test_the_wheels_for_gpus_are_written_last(tmp_path: Path) -> None:
    for name in ("onnxruntime", "onnxruntime_gpu"):
        wheel(tmp_path / "wheels", name, "1.23.2")
    write_lists(tmp_path, "sm61", PROFILES["sm61"])
    [last] = (tmp_path / "last.txt").read_text().splitlines()
    assert last.startswith("onnxruntime_gpu==1.23.2 --hash=sha256:")
    script = (tmp_path / "install.sh").read_text()
    assert script.index("requirements.txt") < script.index("last.txt") < script.index("selftest --for sm61")
    assert subprocess.run(["sh", "-n", tmp_path / "install.sh"], check=False).returncode == 0


@pytest.mark.parametrize("kind", [kind for kind, profile in PROFILES.items() if profile.capability])
def test_both_packages_of_onnx_runtime_are_of_one_version(kind: str) -> None:
    """They have the same files: those of two versions would mix."""
    asked = [re.fullmatch(r"onnxruntime(-gpu)?(\[.*\])?==(\S+)", line) for line in PROFILES[kind].requirements]
    found = {each[1]: each[3] for each in asked if each}
    assert found.keys() == {"-gpu", None}
    assert len({*found.values()}) == 1


def test_what_an_earlier_build_left_is_not_in_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that was deleted since would be in the wheel: setuptools packs all of its folder."""
    old, seen = tmp_path / "build" / "lib" / "deleted.py", list[bool]()
    old.parent.mkdir(parents=True)
    old.touch()

    def pip(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        seen.append(old.exists())
        return subprocess.CompletedProcess([], 0)

    monkeypatch.setattr(subprocess, "run", pip)
    gather(tmp_path / "to" / "wheels", tmp_path, PROFILES["cpu"], (), ())
    assert seen == [False]


def test_another_python_is_named(tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "rigflow", "9.9", SELFTEST)
    write_lists(tmp_path, "cpu", PROFILES["cpu"])
    script = tmp_path / "install.sh"
    script.write_text(script.read_text().replace(f"!= ({sys.version_info.major}, ", "!= (2, "))
    done = installed(tmp_path, tmp_path / "venv")
    assert (done.returncode, "this bundle is for Python" in done.stderr) == (1, True)
    assert not (tmp_path / "venv").exists()


def test_pins_are_the_versions_of_a_lock_file_with_their_conditions() -> None:
    lock = (
        "a-b==1.0 \\\n    --hash=sha256:00\n    # via c\n"
        "c==2.0 ; sys_platform != 'win32' \\\n    --hash=sha256:01 \\\n    --hash=sha256:02\nd==3\n"
    )
    assert pins_of(lock) == ["a-b==1.0", "c==2.0 ; sys_platform != 'win32'", "d==3"]


def test_what_only_the_owner_has_is_named_until_all_of_it_is_there(tmp_path: Path) -> None:
    missing = [without(tmp_path, PROFILES[kind]) for kind in ("cpu", "sm75", "sm61")]
    assert [[each.split(",")[0] for each in of] for of in missing] == [
        [],
        ["a wheel of pycuda"],
        ["a wheel of pycuda", "a wheel of tensorrt"],
    ]
    wheel(tmp_path, "pycuda", "2026.1")
    wheel(tmp_path, "tensorrt_libs", "8.6.1")
    assert without(tmp_path, PROFILES["sm61"]) == ["a wheel of tensorrt, 8.6, from NVIDIA, if you want it"]


@pytest.mark.parametrize("kind", PROFILES)
def test_a_bundle_has_the_versions_of_the_lock_file_but_of_what_its_machines_need(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds: list[str] = []

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        bounds.extend(Path(command[command.index("--constraint") + 1]).read_text().splitlines())
        return subprocess.CompletedProcess([], 0)

    monkeypatch.setattr(subprocess, "run", pip)
    gather(tmp_path / "wheels", ROOT, PROFILES[kind], (), ())
    locked = pins_of((ROOT / "requirements.lock").read_text())
    asked = {package_of(each) for each in PROFILES[kind].requirements}
    assert [each for each in locked if each not in bounds] == [each for each in locked if package_of(each) in asked]
    assert len(bounds) > 20


@pytest.mark.parametrize(
    ("text", "package"),
    [
        ("onnxruntime-gpu[cuda,cudnn]==1.23.2", "onnxruntime-gpu"),
        ("nvidia-cudnn-cu12>=9,<9.11", "nvidia-cudnn-cu12"),
        ("Other_Name-1.0-py3-none-any.whl", "other-name"),
        ("a.b==2 ; sys_platform != 'win32'", "a-b"),
    ],
)
def test_a_package_is_found_in_what_names_it(text: str, package: str) -> None:
    assert package_of(text) == package


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--for", "sm99"), "--for sm99: there are cpu, sm75, sm61"),
        (("--source", "/usr"), "/usr is not rigflow's source"),
        (("--add", "none.whl"), "--add none.whl: no wheel"),
    ],
)
def test_wrong_options_are_named(words: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    ended = rigflow("bundle", tmp_path / "new", *words)
    assert (ended.returncode, reason in ended.stderr) == (2, True), ended.stderr
    assert not (tmp_path / "new").exists()


def test_a_selftest_runs_a_job_and_looks_at_its_numbers() -> None:
    ended = rigflow("selftest")
    assert (ended.returncode, ended.stdout) == (0, PASS), ended.stderr


def test_numbers_that_are_wrong_fail_a_selftest_and_rounding_does_not() -> None:
    right = np.frombuffer(base64.b64decode(RIGHT), np.int8).reshape(3, 64).repeat(2, axis=0) / np.float32(200)
    check(np.float16(right).astype(np.float32), "cpu")
    for wrong in (right[::-1], 0 * right, np.where(np.arange(64) < 20, -right, right), right + np.inf):
        with pytest.raises(RigflowError, match=r"fail: cuda:0 computes wrong numbers: .* of 1 alike"):
            check(wrong, "cuda:0")
    with pytest.raises(RigflowError, match=re.escape("shape [5, 64]")):
        check(right[:5], "cpu")


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a GPU here")
def test_a_selftest_without_the_gpu_it_is_for_says_so() -> None:
    ended = rigflow("selftest", "--for", "sm61", CUDA_VISIBLE_DEVICES="")
    assert (ended.returncode, ended.stderr.startswith("rigflow: fail: ")) == (1, True), ended.stderr


@pytest.mark.slow
def test_a_whole_bundle_is_installed_without_a_network_and_passes(tmp_path: Path) -> None:
    made = rigflow_process("bundle", "--for", "cpu", "--source", ROOT, tmp_path / "bundle")
    assert made.returncode == 0, made.stderr
    alone = ["unshare", "--net", "--map-root-user", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        alone = []  # it may not be asked for here; --no-index is in the script
    words = [*alone, "sh", str(tmp_path / "bundle" / "install.sh"), str(tmp_path / "venv")]
    given = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHON": sys.executable}
    done = subprocess.run(words, capture_output=True, text=True, env=given, check=False)
    assert "pass: a film of 6 s was decoded, computed and collected on cpu" in done.stdout, done.stdout + done.stderr
