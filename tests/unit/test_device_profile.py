"""Profiles of devices: what is measured on this machine, and how the figures of others are told."""

import json
from pathlib import Path

import pytest

from engines.profiling import clips, host, host_name
from engines.profiling.store import keep_profile, kept_profile
from engines.profiling.timing import rate_of
from schemas.device_profile import FP16, FP16_TENSOR, FP32, FP32_SEPARATE, INT8, DeviceProfile
from tests.cli import rigflow

P106 = {FP32: 4.3e12, FP32_SEPARATE: 2.2e12, FP16: 4.3e12 / 64, INT8: 17e12}
CMP_170HX = {FP32: 0.39e12, FP32_SEPARATE: 6.2e12, FP16: 0.4e12, FP16_TENSOR: 50e12, INT8: 24e12}
H200 = {FP32: 60e12, FP32_SEPARATE: 30e12, FP16: 120e12, FP16_TENSOR: 480e12, INT8: 100e12}


def gpu(operations: dict[str, float], link: float = 0.21e9, sustained: float = 1.0) -> DeviceProfile:
    return DeviceProfile(
        device="GPU-1",
        kind="cuda",
        name="a GPU",
        link="PCIe 2.5 GT/s x1",
        measured_s=0,
        seconds=30,
        operations_per_s=operations,
        memory_bytes_per_s=1.92e11,
        to_device_bytes_per_s=link,
        from_device_bytes_per_s=link,
        decode_frames_per_s={"h264 1280x720": 1234.4, "h264 1920x1080": 600.0, "av1 1280x720": 90.0},
        sustained_s=60,
        sustained_ratio=sustained,
    )


@pytest.mark.parametrize(
    ("profile", "rows"),
    [
        (
            gpu(P106),
            {
                "fp32": "4.3 Top/s",
                "fp16": "1/64 of fp32: never",
                "int8": "4 x of fp32",
                "memory": "192 GB/s",
                "PCIe 2.5 GT/s x1": "210 MB/s in, 210 MB/s out: send compressed media, not pixels",
                "decodes h264": "1,234 at 1280x720, 600 at 1920x1080 frames/s",
                "decodes av1": "90 at 1280x720 frames/s",
                "clocks": "100% of the first rate after 60 s of work",
            },
        ),
        (gpu(CMP_170HX), {"multiply-add": "slowed down: separate, 6.2 Top/s", "fp16": "8.1 x of fp32"}),
        (gpu(H200, 5e10), {"fp16": "8 x of fp32", "PCIe 2.5 GT/s x1": "50 GB/s in, 50 GB/s out"}),
        (gpu(P106, sustained=0.7), {"clocks": "70% of the first rate after 60 s of work: cool it better"}),
    ],
)
def test_figures_are_written_in_words(profile: DeviceProfile, rows: dict[str, str]) -> None:
    told = dict(profile.rows())
    assert {subject: told.get(subject) for subject in rows} == rows
    assert ("multiply-add" in told) == (profile.operations_per_s == CMP_170HX)
    assert rows.get("fp16", "") in profile.summary


def test_this_processor_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "SIZES", {(320, 180): 4})
    monkeypatch.setattr(host, "SIZES", {(320, 180): 4})
    steps: list[str] = []
    profile = host.measure_host(0.2, steps.append)
    assert profile.device == host_name.host_id()
    assert set(profile.decode_frames_per_s) == {f"{codec} 320x180" for codec in ("h264", "hevc", "vp9", "av1")}
    assert min(*profile.decode_frames_per_s.values(), *profile.encode_frames_per_s.values()) > 0
    assert 0 < profile.operations_per_s["fp32"] < 1e14
    assert 0 < profile.memory_bytes_per_s < 1e13
    assert steps[0] == "arithmetic"
    assert len(steps) == 2 + 4 + 1
    assert kept_profile(tmp_path, profile.device) is None
    keep_profile(tmp_path, profile)
    assert kept_profile(tmp_path, profile.device) == profile
    assert kept_profile(tmp_path, profile.device, driver="570.1") is None
    (tmp_path / "profiles" / f"{profile.device}.json").write_text('{"version": 2}')
    assert kept_profile(tmp_path, profile.device) is None


def test_a_kept_profile_is_listed_and_shown_by_doctor(tmp_path: Path) -> None:
    nothing = rigflow("profile", "--list", RIGFLOW_CACHE=str(tmp_path))
    assert (nothing.returncode, nothing.stdout) == (0, "No profile is kept: `rigflow profile` measures one.\n")
    profile = gpu(P106).model_copy(update={"device": host_name.host_id(), "kind": "cpu", "name": "a processor"})
    keep_profile(tmp_path, profile)
    [listed] = json.loads(rigflow("profile", "--list", "--json", RIGFLOW_CACHE=str(tmp_path)).stdout)
    assert DeviceProfile.model_validate(listed) == profile
    assert "memory            192 GB/s" in rigflow("profile", "cpu", "--list", RIGFLOW_CACHE=str(tmp_path)).stdout
    findings = json.loads(rigflow("doctor", "--json", RIGFLOW_CACHE=str(tmp_path)).stdout)
    assert "fp32 4.3 Top/s" in next(each["found"] for each in findings if each["what"] == "cores")


@pytest.mark.parametrize("device", ["gpu", "cuda:77", "cuda:[x]"])
def test_a_device_that_is_not_there_is_one_line(device: str, tmp_path: Path) -> None:
    ended = rigflow("profile", device, RIGFLOW_CACHE=str(tmp_path))
    assert (ended.returncode, ended.stdout) == (2, "")
    [line] = ended.stderr.splitlines()
    assert device in line


def test_a_rate_counts_what_all_threads_do() -> None:
    assert 100 < rate_of([lambda: 1.0] * 2, 0.05) < 1e9
    with pytest.raises(ZeroDivisionError):
        rate_of([lambda: 1.0, lambda: 1 / 0], 0.05)
