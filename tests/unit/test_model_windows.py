"""Models of windows as they were exported, `[N, 3, T, H, W]` and the like: NumPy's values, bit for bit."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from schemas.errors import ModelError
from tests.fronts import NANODET, Array, H, W, f32, frames, read, run, through
from tests.onnx_graphs import FLOAT

T = 2
MEAN, STD = f32([103.53, 116.28, 123.675]), f32([57.375, 57.12, 58.395])
IMAGENET = f"scale = {1 / 255}\nmean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]"


def ordered(x: Array, *order: int) -> Array:
    return np.ascontiguousarray(x.transpose(0, *order))


@pytest.mark.parametrize("opset", [7, 13, 21])
@pytest.mark.parametrize(
    ("shape", "card", "expected"),
    [
        (
            [T, 3, H, W],
            f"layout = 'ntchw'\n{IMAGENET}",
            lambda x: ordered((x * f32(1 / 255) - f32([0.485, 0.456, 0.406])) / f32([0.229, 0.224, 0.225]), 1, 4, 2, 3),
        ),
        (
            [3, T, H, W],
            "layout = 'ncthw'\nmean = 114.75\nstd = 57.375",
            lambda x: ordered((x - f32(114.75)) / f32(57.375), 4, 1, 2, 3),
        ),
        (
            [3, T, H, W],
            f"layout = 'ncthw'\n{NANODET}",
            lambda x: ordered((x[..., ::-1].astype(f32) - MEAN) / STD, 4, 1, 2, 3),
        ),
        ([T, H, W, 3], f"layout = 'nthwc'\n{NANODET}", lambda x: (x[..., ::-1].astype(f32) - MEAN) / STD),
        ([T, H, W, 3], "layout = 'nthwc'", lambda x: x * f32(1 / 255)),
        ([1, T, H, W], "layout = 'ncthw'", lambda x: x[:, None] * f32(1 / 255)),
        ([T, 1, H, W], "layout = 'ntchw'", lambda x: x[:, :, None] * f32(1 / 255)),
        ([T, H, W], "layout = 'nthw'\ncolours = 'gray'", lambda x: x * f32(1 / 255)),
    ],
)
def test_windows_of_bytes_become_what_numpy_makes_of_them(
    shape: list[int | str], card: str, expected: Callable[[Array], Array], opset: int
) -> None:
    gray = 3 not in shape
    spec, body = read(through(FLOAT, ["N", *shape], opset), f'[[inputs]]\nname = "x"\n{card}\n')
    [fed] = spec.inputs
    assert (fed.dtype, fed.shape) == ("uint8", ("N", T, H, W) if gray else ("N", T, H, W, 3))
    assert fed.picture is not None
    assert fed.picture.size == (H, W)
    windows = frames(2 * T).reshape(2, T, H, W, 3)
    windows = windows[..., 0] if gray else windows
    assert run((spec, body), x=windows)["y"].tolist() == expected(windows).tolist()


@pytest.mark.parametrize(
    ("shape", "card", "found"),
    [
        (["N", 3, T, H, W], "mean = 2", 'write layout = "ntchw", "ncthw" or "nthwc"'),
        (["N", 3, T, H, W], 'layout = "ntchw"', "layout: ntchw, and dimension 2 of .* is not 1 or 3"),
        (["N", 3, H, W], 'layout = "ntchw"', "is no picture"),
        (["N", 3, T, H, W], 'layout = "ncthw"\ncolours = "ycbcr"', "ycbcr of windows"),
    ],
)
def test_cards_of_windows_that_do_not_fit(shape: list[int | str], card: str, found: str) -> None:
    with pytest.raises(ModelError) as caught:
        read(through(FLOAT, shape, 17), f'[[inputs]]\nname = "x"\n{card}\n')
    assert re.search(found, f"{caught.value.what} {caught.value.hint}")
