"""The profile of a real GPU."""

from pathlib import Path

import pytest

from engines.machine import driver_version
from schemas.device_profile import FP16, FP32, FP32_SEPARATE, INT8
from schemas.settings import Settings

pytestmark = pytest.mark.gpu


def test_a_gpu_is_measured(tmp_path: Path) -> None:
    from engines.profiling.gpu import measure_gpu

    steps: list[str] = []
    profile = measure_gpu("cuda:0", tmp_path, 10, 1, steps.append)
    rates = profile.operations_per_s
    assert 1e11 < rates[FP32] < 1e15
    assert rates[FP32_SEPARATE] < 8 * rates[FP32]  # more only where multiply-add is slowed down
    assert 1e9 < rates[FP16] < 1e16
    assert 1e10 < rates[INT8] < 1e16
    assert 1e9 < profile.memory_bytes_per_s < 1e14
    assert 1e7 < min(profile.to_device_bytes_per_s, profile.from_device_bytes_per_s) < 1e12
    assert profile.decode_frames_per_s["h264 1280x720"] > profile.decode_frames_per_s["h264 3840x2160"] > 1
    assert 0.5 < profile.sustained_ratio <= 1
    assert len(steps) >= 15


def test_a_gpu_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    from engines.profiling.apart import measure_apart

    steps: list[str] = []
    profile = measure_apart("cuda:0", Settings(cache=str(tmp_path)), 5, steps.append)
    assert (profile.kind, profile.driver, profile.sustained_s) == ("cuda", driver_version(), 0)
    assert steps[0] == "arithmetic"
