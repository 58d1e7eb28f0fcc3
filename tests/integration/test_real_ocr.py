"""PP-OCR's real networks, added by `rigflow model add` and nothing else, beside RapidOCR's own pipeline."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from engines.outputs.text import font
from tests.cases import Array, Fleets, fleets, lines
from tests.cli import rigflow
from tests.weights import checked

pytestmark = [pytest.mark.models, pytest.mark.filterwarnings("ignore")]  # RapidOCR's dependencies warn as they please
SIZE = (736, 1024)  # RapidOCR looks at smaller pictures enlarged
TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "Invoice No. 20931 / 2026-11-27",
    "Total: 1,284.50 EUR (VAT 19%)",
    "Wie geht es Ihnen heute?",
    "中文识别测试第一行",
    "价格：128元，欢迎光临",
    "rigflow reads: 0123456789",
    "mixed 中文 and English text",
    "Email: someone@example.org",
)
STAGES = (("decode", "resize"), ("find", "cut", "upright"), ("turn", "lines", "read"), ("encode", "split", "collect"))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleets]:
    with fleets(tmp_path_factory.mktemp("cache"), STAGES) as started:
        yield started


def page(seed: int) -> Image.Image:
    """Lines of several sizes at random places."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", SIZE[::-1], (250, 248, 240))
    draw, top = ImageDraw.Draw(image), 20
    for number in range(len(TEXTS)):
        size = int(random.choice([18, 24, 32, 40]))
        text = TEXTS[(number + 2 * seed) % len(TEXTS)]
        draw.text((int(random.integers(20, 200)), top), text, font=font(size), fill=(int(random.integers(60)),) * 3)
        top += size + int(random.integers(18, 34))
    return image


def pages() -> dict[str, Array]:
    """Plain ones, one that is turned by a few degrees, and one upside down."""
    made = {f"page{seed}": page(seed) for seed in range(2)}
    made["slanted"] = page(3).rotate(4, resample=Image.Resampling.BICUBIC, fillcolor=(250, 248, 240))
    made["turned"] = page(4).rotate(180)
    return {name: np.asarray(image) for name, image in made.items()}


def expected(picture: Array) -> list[tuple[Array, str, float]]:
    """What RapidOCR finds: corners, text, score; each line read alone, for its answers depend on their batch."""
    from rapidocr_onnxruntime import RapidOCR

    found, _ = RapidOCR(rec_batch_num=1)(np.ascontiguousarray(picture[..., ::-1]))
    return [(np.array(corners), text, float(score)) for corners, text, score in found]


async def test_text_is_that_of_rapidocr(fleet: Fleets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Corners within a pixel, nine of ten the same; texts equal."""
    package = find_spec("rapidocr_onnxruntime")
    if package is None or package.origin is None:
        pytest.skip("rapidocr-onnxruntime is not installed: make test-models installs it")
    monkeypatch.setenv("HOME", str(tmp_path))
    for model in ("ch_PP-OCRv4_det_infer", "ch_ppocr_mobile_v2.0_cls_infer", "ch_PP-OCRv4_rec_infer"):
        path = checked(Path(package.origin).parent / "models" / f"{model}.onnx")
        done = rigflow("model", "add", path, "--yes", HOME=str(tmp_path))
        assert done.returncode == 0, done.stderr
    pipeline = tmp_path / "p.toml"
    own = rigflow("pipelines", "show", "ocr").stdout
    assert "width_step = 8\n" in own
    pipeline.write_text(own.replace("width_step = 8\n", "width_step = 1\n"))  # as RapidOCR reads a line alone
    pictures = pages()
    for name, picture in pictures.items():
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    inputs = [tmp_path / f"{name}.png" for name in pictures]
    [outcome] = await fleet.answers(pipeline, inputs, tmp_path / "out")
    same, total = 0, 0
    for row in lines(outcome):
        wanted = expected(pictures[row["name"].removesuffix(".png")])
        assert [line["text"] for line in row["lines"]] == [text for _, text, _ in wanted], row["name"]
        for line, (corners, _, score) in zip(row["lines"], wanted, strict=True):
            away = distance(line, corners)
            total += 1
            same += away == 0
            assert away <= 1
            assert abs(line["score"] - score) < 0.1  # Pillow's bicubic filter is not OpenCV's
    assert total > 30
    assert same >= 0.9 * total


def distance(line: dict[str, Any], corners: Array) -> float:
    """Farthest corner; lines upside down begin with their other one here."""
    found = np.array(line["corners"])
    return min(float(np.abs(each - corners).max()) for each in (found, np.roll(found, 2, axis=0)))
