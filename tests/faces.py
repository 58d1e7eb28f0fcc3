"""Faces for tests: five coloured discs on a picture, a detector that finds exactly these, and a network for crops."""

from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnxruntime
from onnx import helper, numpy_helper
from scipy import ndimage

from tests.onnx_graphs import FLOAT, model_of, value

Array = np.ndarray[Any, Any]
# eyes, nose and corners of the mouth of a face, in units of the distance of its eyes, from the middle between them
SHAPE = np.array([[-0.5, 0], [0.5, 0], [0, 0.6], [-0.4, 1.05], [0.4, 1.05]])
COLOURS = np.array([[[255 - 16 * face, 8, 32 * (1 + point)] for point in range(5)] for face in range(2)])
# places of the same points in an aligned picture of 512 pixels, TencentARC/GFPGAN
TEMPLATE = np.array([[192.98138, 239.94708], [318.90277, 240.1936], [256.63416, 314.01935],
                     [201.26117, 371.41043], [313.08905, 371.15118]])  # fmt: skip
SIZE = (120, 160)  # height and width of the frames
DETECTOR = """
[[inputs]]
name = "images"
scale = 1.0
[[heads]]
kind = "keypoints"
decoder = "end2end"
points = 5
labels = ["face"]
"""
RESTORER = """
[[inputs]]
name = "input"
scale = 0.00392156862745098
mean = 0.5
std = 0.5
[[heads]]
kind = "image"
range = [-1.0, 1.0]
"""


def face(x: float, y: float, eyes: float, degrees: float = 0.0) -> Array:
    """The five points `[5, 2]` of a face: the middle between its eyes, their distance, and its turn."""
    turn = np.deg2rad(degrees)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return np.array([x, y]) + eyes * SHAPE @ matrix.T


def drawn_faces(faces: dict[int, Array], number: int = 0, size: tuple[int, int] = SIZE) -> Array:
    """A picture `[H, W, 3]` with a smooth ground and these faces, 0 or 1: a disc round each point."""
    y, x = np.mgrid[: size[0], : size[1]]
    picture = np.stack([60 + x // 2 + 3 * number, 70 + y // 2, 40 + (x + y) // 4 + number], -1) % 200
    for which, points in faces.items():
        radius = max(1.0, float(np.hypot(*(points[1] - points[0]))) / 6)
        for colour, (left, top) in zip(COLOURS[which], points, strict=True):
            picture[(x - left) ** 2 + (y - top) ** 2 <= radius**2] = colour
    return picture.astype(np.uint8)


def centres(picture: Array, which: int) -> Array | None:
    """The points `[5, 2]` of a face in a picture, centres of pixels; None where one is missing. Plain NumPy."""
    found = []
    for colour in COLOURS[which]:
        rows, columns = np.nonzero((picture == colour).all(-1))
        if not len(rows):
            return None
        found.append((columns.mean(), rows.mean()))
    return np.array(found)


def faces_film(folder: Path, frames: int = 24, every: int = 3, name: str = "faces") -> Path:
    """A video in lossless RGB; every third frame has a face, every sixth two."""
    path = folder / f"{name}.mp4"
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264rgb", rate=10, options={"qp": "0", "bf": "0"})
        video.height, video.width, video.pix_fmt = *SIZE, "rgb24"
        video.codec_context.gop_size = 5
        for number in range(frames):
            faces = {}
            if number % every == 0:
                faces[0] = face(48 + number % 7, 54, 14 + number % 5, 3.0 * number)
            if number % (2 * every) == 0:
                faces[1] = face(108, 56 + number % 5, 15, -5.0 * number)
            out.mux(video.encode(av.VideoFrame.from_ndarray(drawn_faces(faces, number), "rgb24")))
        out.mux(video.encode())
    return path


@cache
def detector(size: tuple[int, int] = SIZE) -> bytes:
    """`images [N, 3, H, W]` of bytes -> `output [N, 2, 21]`: box, score, class and five points of each face."""
    height, width = size
    colours = COLOURS.reshape(1, 10, 3, 1, 1).astype("f4")
    x = np.broadcast_to(np.arange(width, dtype="f4"), (1, 1, height, width))
    y = np.broadcast_to(np.arange(height, dtype="f4")[:, None], (1, 1, height, width))
    nodes, constants = [], []

    def op(kind: str, *names: Any, result: str = "", **attributes: Any) -> str:
        given = []
        for each in names:
            if not isinstance(each, str):
                constants.append(numpy_helper.from_array(np.ascontiguousarray(each), f"c{len(constants)}"))
                each = constants[-1].name
            given.append(each)
        nodes.append(helper.make_node(kind, given, [result or f"v{len(nodes)}"], **attributes))
        return str(nodes[-1].output[0])

    far = op("ReduceMax", op("Abs", op("Sub", op("Unsqueeze", "images", np.array([1])), colours)), axes=[2], keepdims=0)
    inside = op("Cast", op("Less", far, np.float32(0.5)), to=FLOAT)  # [N, 10, H, W]
    count = op("ReduceSum", inside, np.array([2, 3]), keepdims=0)
    least = op("Max", count, np.float32(1))
    across, down = (
        op("Div", op("ReduceSum", op("Mul", inside, grid), np.array([2, 3]), keepdims=0), least) for grid in (x, y)
    )
    score = op("ReduceMin", op("Reshape", op("Min", count, np.float32(1)), np.array([-1, 2, 5])), axes=[2], keepdims=1)
    places = [op("Reshape", each, np.array([-1, 2, 5])) for each in (across, down)]
    low = [op("ReduceMin", each, axes=[2], keepdims=1) for each in places]
    high = [op("ReduceMax", each, axes=[2], keepdims=1) for each in places]
    ones = op("Add", op("Mul", places[0], np.float32(0)), np.float32(1))
    points = op("Reshape", op("Concat", *(op("Unsqueeze", each, np.array([3])) for each in (*places, ones)), axis=3),
                np.array([-1, 2, 15]))  # fmt: skip
    kind = op("Mul", score, np.float32(0))
    op("Concat", *low, *high, score, kind, points, axis=2, result="output")
    shapes = [value("images", FLOAT, ["n", 3, height, width])], [value("output", FLOAT, ["n", 2, 21])]
    return model_of(nodes, *shapes, tuple(constants))


@cache
def restorer(side: int = 64, batch: int | str = "n") -> bytes:
    """`input [n, 3, side, side]` of -1 ... 1 -> `output` of the same: sharper, and a little redder."""
    kernel = np.zeros((3, 3, 3, 3), "f4")
    for channel in range(3):
        kernel[channel, channel] = [[0, -0.5, 0], [-0.5, 3.0, -0.5], [0, -0.5, 0]]
    tint = np.array([0.15, 0.0, -0.15], "f4")
    constants = numpy_helper.from_array(kernel, "w"), numpy_helper.from_array(tint, "b")
    nodes = [
        helper.make_node("Pad", ["input", "pads"], ["wider"], mode="edge"),
        helper.make_node("Conv", ["wider", "w", "b"], ["output"]),
    ]
    pads = numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1]), "pads")
    shape = [batch, 3, side, side]
    return model_of(nodes, [value("input", FLOAT, shape)], [value("output", FLOAT, shape)], (*constants, pads))


def restored(graph: bytes, crop: Array) -> Array:
    """What plain ONNX Runtime and NumPy make of a crop `[h, w, 3]` of bytes: the same, floats of 0 ... 255."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    values = ((crop.astype("f4") * np.float32(1 / 255) - np.float32(0.5)) / np.float32(0.5)).transpose(2, 0, 1)[None]
    [answer] = session.run(None, {"input": values})
    return np.asarray(np.clip(answer[0], -1, 1).transpose(1, 2, 0) * 127.5 + 127.5)


def aligning(points: Array, side: int) -> Array:
    """The similarity `[2, 3]` from centres of pixels of a frame to those of its crop: Umeyama (1991)."""
    template = TEMPLATE * side / 512
    mean, to = points.mean(0), template.mean(0)
    u, d, v = np.linalg.svd((template - to).T @ (points - mean) / len(points))
    sign = np.diag([1, np.sign(np.linalg.det(u) * np.linalg.det(v))])
    linear = u @ sign @ v * (d * np.diag(sign)).sum() / ((points - mean) ** 2).sum(1).mean()
    return np.concatenate([linear, (to - linear @ mean)[:, None]], axis=1)


def sampled_at(picture: Array, x: Array, y: Array, fill: float) -> Array:
    """Bilinear samples of `[H, W]` at centres of pixels, by SciPy in float64."""
    return np.asarray(ndimage.map_coordinates(picture.astype(float), [y, x], order=1, cval=fill, mode="constant"))


def with_faces(frame: Array, found: list[Array], graph: bytes, side: int, larger: Array | None = None) -> Array:
    """A frame with restored faces, floats of 0 ... 255, in plain NumPy, SciPy and ONNX Runtime.

    The mask is a box of ones, 1/20 of the side smaller on all sides, blurred as OpenCV does with a kernel of 1/10.
    """
    made = (frame if larger is None else larger).astype(float)
    factor = made.shape[0] / frame.shape[0]
    sigma = 0.3 * side / 20
    for points in found[::-1]:
        matrix = aligning(points, side)
        back = np.linalg.inv(np.concatenate([matrix, [[0, 0, 1]]]))
        v, u = np.mgrid[:side, :side].astype(float)
        x, y = (row[0] * u + row[1] * v + row[2] for row in back[:2])
        crop = np.stack([sampled_at(frame[..., c], x, y, fill) for c, fill in enumerate((135, 133, 132))], -1)
        face = restored(graph, np.rint(crop).astype(np.uint8))
        box = np.zeros((side + 80, side + 80))
        edge = side / 20
        inner = np.clip(np.arange(side + 80) - 40 + 1 - edge, 0, 1) * np.clip(
            side - edge - np.arange(side + 80) + 40, 0, 1
        )
        box[:] = np.outer(inner, inner)
        mask = ndimage.gaussian_filter(box, sigma)[40:-40, 40:-40]
        rows, columns = np.mgrid[: made.shape[0], : made.shape[1]]
        x, y = (columns + 0.5) / factor - 0.5, (rows + 0.5) / factor - 0.5
        u, v = (row[0] * x + row[1] * y + row[2] for row in matrix)
        share = sampled_at(mask, u, v, 0)[..., None]
        made += share * (np.stack([sampled_at(face[..., c], u, v, 0) for c in range(3)], -1) - made)
    return made


def psnr(found: Array, expected: Array) -> float:
    """Peak signal to noise ratio in decibels."""
    error = float(((found.astype(float) - expected) ** 2).mean())
    return 99.0 if error == 0 else 10 * np.log10(255**2 / error)
