"""Models by card alone, on a GPU: its kernels make their pictures, and a fleet without one answers alike."""

from pathlib import Path

import numpy as np
import pytest

from schemas.pipeline import parse_pipeline
from schemas.rig import ALL_STAGES
from tests.clips import real_clip
from tests.fleet import Fleet
from tests.reducing import detector

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]
CARD = """
[[inputs]]
name = "images"
fit = "letterbox"
resize = "{resize}"
pad_value = 114
{more}
[[heads]]
kind = "detect"
decoder = "yolov8"
threshold = 0.0001
nms = 1.0
max = 64
"""
PIPELINE = """
name = "seen"
media = "video"
[[stage]]
kind = "decode"
fps = 5
[[stage]]
kind = "infer"
model = "boxes"
[[stage]]
kind = "encode"
format = "npz"
"""


@pytest.mark.parametrize(
    ("resize", "more"), [("bilinear", ""), ("area", 'pad_place = "corner"'), ("bicubic", "antialias = true")]
)
def test_a_detector_finds_on_a_gpu_what_it_finds_on_the_host(tmp_path: Path, resize: str, more: str) -> None:
    detector(tmp_path / "boxes.onnx")
    (tmp_path / "boxes.toml").write_text(CARD.format(resize=resize, more=more))
    spec = parse_pipeline(PIPELINE, "seen.toml")
    found = {}
    for device in ("cpu", "cuda:0"):
        with Fleet((ALL_STAGES,), tmp_path / f"cache-{device[:4]}", devices=[device]) as fleet:
            (outcome,) = fleet.run(spec, [real_clip("bigbuckbunny")], tmp_path / device[:4], folder=tmp_path)
        assert outcome.ok, outcome.error
        with np.load(f"{outcome.target}.npz") as arrays:
            found[device] = {name: arrays[name] for name in arrays.files}
    host, gpu = found["cpu"], found["cuda:0"]
    np.testing.assert_array_equal(gpu["boxes_offsets"], host["boxes_offsets"])
    for start, stop in zip(host["boxes_offsets"][:-1], host["boxes_offsets"][1:], strict=True):
        by_place = [np.lexsort(np.round(each["boxes"][start:stop] / 20).T) for each in (host, gpu)]
        one, other = (each["scores"][start:stop][order] for each, order in zip((host, gpu), by_place, strict=True))
        assert abs(np.sort(one) - np.sort(other)).max() < 0.02
