"""Text in pictures, through fleets: networks of the form of PP-OCR find, turn and read lines of coloured blocks."""

from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from tests.cases import Array, Fleets, check, fleets, lines, put, whole_and_killed
from tests.cli import rigflow
from tests.onnx_graphs import FLOAT, model_of, value

STAGES = (
    ("decode", "resize"),
    ("find", "cut"),
    ("upright", "turn", "lines"),
    ("read",),
    ("encode", "split", "collect"),
)
CARD = """
[[inputs]]
name = "x"
colours = "bgr"
scale = 0.00392156862745098
mean = 0.5
std = 0.5
"""
CARDS = {
    "find": CARD + 'size = "source"\nmultiple = 8\n[[heads]]\nkind = "text_boxes"\nunclip = 0.3\n',
    "upright": CARD + '[[heads]]\nkind = "classify"\ntop = 1\n',
    "read": CARD + 'size = "source"\nshape = ["N", 3, 48, "W"]\n[[heads]]\nkind = "text"\nlabels = ["r", "g", "b"]\n',
}
COLOURS = {"r": (255, 0, 0), "g": (0, 255, 0), "b": (0, 0, 255)}
Line = tuple[int, int, str]  # left, top, text; capital letters stand on their head


def ints(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


class Net:
    """A graph of one input x."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def op(self, kind: str, *inputs: Any, result: str = "", **attributes: Any) -> str:
        names = []
        for each in inputs:
            if not isinstance(each, str):
                self.constants.append(numpy_helper.from_array(np.asarray(each), f"c{len(self.constants)}"))
                each = self.constants[-1].name
            names.append(each)
        self.nodes.append(helper.make_node(kind, names, [result or f"v{len(self.nodes)}"], **attributes))
        return str(self.nodes[-1].output[0])

    def rows(self, first: int, last: int) -> str:
        """Means of rows, `[N, 3, 1, W]`."""
        cut = self.op("Slice", "x", ints(first), ints(last), ints(2))
        return self.op("ReduceMean", cut, axes=[2], keepdims=1)

    def done(self, size: Sequence[int | str], out: Sequence[int | str]) -> bytes:
        shapes = [value("x", FLOAT, ["N", 3, *size])], [value("out", FLOAT, ["N", *out])]
        return model_of(self.nodes, *shapes, tuple(self.constants))


def finding() -> bytes:
    """1 near all that is not white."""
    net = Net()
    least = net.op("ReduceMin", "x", axes=[1], keepdims=1)
    near = net.op("Cast", net.op("Less", least, np.float32(0)), to=FLOAT)
    net.op("MaxPool", near, kernel_shape=[1, 13], pads=[0, 6, 0, 6], result="out")
    return net.done(["H", "W"], [1, "H", "W"])


def upright() -> bytes:
    """Upside down where there is more black above than below."""
    net = Net()
    above, below = (net.op("ReduceMean", net.rows(*at), axes=[1, 2, 3], keepdims=0) for at in ((4, 12), (36, 44)))
    over = net.op("Sigmoid", net.op("Mul", net.op("Sub", below, above), np.float32(40)))
    scores = [net.op("Unsqueeze", each, ints(1)) for each in (net.op("Sub", np.float32(1), over), over)]
    net.op("Concat", *scores, axis=1, result="out")
    return net.done([48, 192], [2])


def reading() -> bytes:
    """Blank, red, green and blue of each 8 columns."""
    net = Net()
    colours = net.op("AveragePool", net.rows(10, 34), kernel_shape=[1, 8], strides=[1, 8])
    mixed = np.float32([[-1, -1, 2], [-1, 2, -1], [2, -1, -1]]).reshape(3, 3, 1, 1) / 4  # of B, G and R
    scores = net.op("Min", net.op("Conv", colours, 3 * mixed), np.float32(1))
    blank = net.op(
        "Add", net.op("Mul", net.op("Slice", scores, ints(0), ints(1), ints(1)), np.float32(0)), np.float32(0.9)
    )
    joined = net.op("Squeeze", net.op("Concat", blank, scores, axis=1), ints(2))
    net.op("Transpose", joined, perm=[0, 2, 1], result="out")
    return net.done([48, "W"], ["T", 4])


def page(shown: Sequence[Line], size: tuple[int, int] = (160, 240)) -> Array:
    """White, with lines of blocks of 16 x 20, 8 apart, each line with a bar below."""
    picture = np.full((*size, 3), 255, np.uint8)
    for left, top, text in shown:
        line = np.full((26, 24 * len(text) - 8, 3), 255, np.uint8)
        for number, letter in enumerate(text.lower()):
            line[:20, 24 * number : 24 * number + 16] = COLOURS[letter]
        line[20:] = 0
        line = line if text.islower() else line[::-1, ::-1]
        picture[top : top + 26, left : left + line.shape[1]] = line
    return picture


PAGES: list[list[Line]] = [
    [(20, 10, "rgbr"), (150, 14, "bg"), (30, 60, "GRB"), (10, 110, "rbgrbgrbg")],
    [],
    [(60, 80, "bgr")],
]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleets]:
    with fleets(tmp_path_factory.mktemp("cache"), STAGES) as started:
        yield started


def pipeline(folder: Path) -> Path:
    """rigflow's own, with the networks of the tests."""
    for name, graph in (("find", finding()), ("upright", upright()), ("read", reading())):
        put(folder, graph, CARDS[name], name)
    text = files("pipelines").joinpath("definitions", "ocr.toml").read_text()
    for old, new in (
        ("ch_PP-OCRv4_det_infer", "find"),
        ("ch_ppocr_mobile_v2.0_cls_infer", "upright"),
        ("ch_PP-OCRv4_rec_infer", "read"),
        ('media = ["image", "video"]', 'media = ["image", "video"]\nsegment_s = 0.5'),
    ):
        assert old in text
        text = text.replace(old, new)
    path = folder / "p.toml"
    path.write_text(text)
    return path


def films(folder: Path, frames: int = 12) -> Path:
    """The pages by turns, in lossless RGB."""
    path = folder / "film.mp4"
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264rgb", rate=10, options={"qp": "0", "bf": "0"})
        video.height, video.width, video.pix_fmt = 160, 240, "rgb24"
        video.codec_context.gop_size = 5
        for number in range(frames):
            out.mux(video.encode(av.VideoFrame.from_ndarray(page(PAGES[number % 3]), "rgb24")))
        out.mux(video.encode())
    return path


async def test_lines_are_read_in_order_and_upright(fleet: Fleets, tmp_path: Path) -> None:
    images = [tmp_path / f"page{number}.png" for number in range(3)]
    for path, shown in zip(images, PAGES, strict=True):
        Image.fromarray(page(shown)).save(path)
    film = films(tmp_path)
    of_film, of_images = await fleet.answers(pipeline(tmp_path), [film, *images], tmp_path / "out")
    expected = [[text.lower() for _, _, text in shown] for shown in PAGES]
    for row, shown, texts in zip(lines(of_images), PAGES, expected, strict=True):
        assert [line["text"] for line in row["lines"]] == texts
        for line, (left, top, text) in zip(row["lines"], shown, strict=True):
            found, corners = line["box"], np.array(line["corners"])
            np.testing.assert_allclose(found, [left, top, left + 24 * len(text) - 8, top + 26], atol=13)
            assert (corners[0].sum() == corners.sum(1).min()) == text.islower()
    for path, texts in zip(images, expected, strict=True):
        assert (of_images.target / f"{path.stem}.txt").read_text().split() == texts
    assert [[line["text"] for line in row["lines"]] for row in lines(of_film)] == expected * 4
    plain = Path(f"{of_film.target}.txt").read_text().splitlines()
    assert plain == [f"{number / 10}\t{text}" for number in range(12) for text in expected[number % 3]]


def test_killed_workers_change_nothing(tmp_path: Path) -> None:
    """A film of four segments, and the pages as pictures."""
    images = [tmp_path / f"page{number}.png" for number in range(3)]
    for path, shown in zip(images, PAGES, strict=True):
        Image.fromarray(page(shown)).save(path)
    inputs = [films(tmp_path, frames=20), *images]
    [of_film, _] = whole_and_killed(pipeline(tmp_path), inputs, tmp_path / "out", tmp_path / "cache")
    expected = [[text.lower() for _, _, text in PAGES[number % 3]] for number in range(20)]
    assert [[line["text"] for line in row["lines"]] for row in lines(of_film)] == expected


def test_a_missing_model_is_one_line(tmp_path: Path) -> None:
    picture = tmp_path / "page.png"
    Image.fromarray(page(PAGES[0])).save(picture)
    done = rigflow("run", "ocr", picture, "--out", tmp_path / "out", HOME=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "model ch_PP-OCRv4_det_infer is missing: download ch_PP-OCRv4_det_infer.onnx from" in done.stderr
    assert (
        "; --set find.model=NAME runs another; model ch_ppocr_mobile_v2.0_cls_infer is missing too: download "
        in done.stderr
    )


def test_text_needs_a_model_that_reads(tmp_path: Path) -> None:
    path = pipeline(tmp_path)
    text = path.read_text()
    start = text.index('[[stage]]\nkind = "infer"\nname = "read"')
    path.write_text(text[:start] + text[text.index('[[stage]]\nkind = "encode"') :])
    assert "format text needs `text`" in check(path)
