"""Runs a model on one picture, and describes or draws its answer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from engines.content import Content
from engines.heads.view import view_of
from engines.inference.heads import Heads
from engines.inference.session import RowBatch, check_batch
from engines.inference.sources import Source
from engines.inference.tiles import Tiles
from engines.inference.trial import HINT
from engines.models.observe import test_picture
from engines.outputs.draw import Canvas, channel_paint
from engines.outputs.objects import ROWS, Objects
from engines.outputs.overlay import DRAWN, Finding, Wanted
from engines.outputs.surfaces import HostSurface
from engines.own_process import in_own_process
from engines.part import Array, Value
from engines.ragged import Ragged
from engines.transforms import Picture
from schemas.errors import ModelError, UsageError
from schemas.model import ModelSpec, describe
from schemas.picture import PictureSpec

if TYPE_CHECKING:
    from engines.inference.onnxruntime import OnnxRuntimeSession

_LARGE, _SMALL = (480, 640), (192, 256)  # of the test picture; small if a model takes any size
_MOST_LINES = 10
_OVERFLOW = "some networks overflow in fp16: export it in fp32; else correct the card's scale and mean"
_IMAGE = "image"  # the array of the head of that name
_LISTED = ("boxes", "classes", "tags")  # arrays that are listed, with their scores
_ONE = {"boxes": "box", "classes": "class", "tags": "tag"}


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer to one picture, `picture [H, W, 3]` uint8; arrays with one row, of heads and outputs."""

    picture: Array
    arrays: Mapping[str, Value]
    labels: Mapping[str, Sequence[str]]
    named: frozenset[str]  # arrays that heads made; their names state their meaning


def read_picture(path: Path) -> Array:
    """Read a picture file, upright, `[H, W, 3]` uint8. Raises UsageError, whose text has none of Pillow's words."""
    try:
        with Image.open(path) as opened:
            return np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    except UnidentifiedImageError as error:
        raise UsageError(f"{path} is no picture of a format that rigflow reads", "give a png or jpeg") from error
    except Image.DecompressionBombError as error:
        raise UsageError(f"the picture {path} has too many pixels", "scale it down") from error
    except (OSError, ValueError, SyntaxError) as error:  # Pillow raises all three for damaged files
        reason = getattr(error, "strerror", None) or "it is damaged"
        raise UsageError(f"cannot read the picture {path}: {reason}", "give another png or jpeg") from error


def answer(spec: ModelSpec, body: Content, picture: Array | None = None) -> Answer:
    """Run a model on a picture in a process of its own; the default picture has slopes, a disc and a grid.

    Raises ModelError.
    """
    if picture is None:
        free = any(tensor.picture and tensor.picture.size == "source" for tensor in spec.inputs)
        picture = np.asarray(np.rint(test_picture(*(_SMALL if free else _LARGE)) * 255), np.uint8)
    return in_own_process(spec.name, "runs", HINT, _answer, spec, body, picture)


def _answer(spec: ModelSpec, body: Content, picture: Array) -> Answer:
    from engines.inference.onnxruntime import OnnxRuntimeSession, load
    from engines.inference.trial import limit_memory

    limit_memory()
    made = next((tensor.picture for tensor in spec.inputs if tensor.picture), None)
    heads = Heads(spec)
    if made is not None and made.tile:
        session = OnnxRuntimeSession(body, spec, loaded=load(body, spec.name, once=True))
        return Answer(picture, _of_tiles(session, heads, made, picture), {}, frozenset(heads.named))
    feed = {}
    picture = _at_height(picture, spec)
    for tensor in spec.inputs:
        if tensor.picture:
            check_batch(spec, tensor)
            shown = _made(picture, tensor.picture)
            times = [size if isinstance(size, int) else 1 for size in tensor.shape[1 : len(tensor.shape) - shown.ndim]]
            feed[tensor.name] = np.broadcast_to(shown, (1, *times, *shown.shape))
        else:
            if any(isinstance(size, str) for size in tensor.shape[1:]) and not tensor.state:
                what = (
                    f"model {spec.name} is not tried: its input {tensor.name} is {describe(tensor.dtype, tensor.shape)}"
                )
                raise ModelError(what, f"give it a size: --set inputs.{len(feed)}.shape=[...]")
            shape = [size if isinstance(size, int) else 1 for size in tensor.shape]
            feed[tensor.name] = np.full(shape, tensor.state.start if tensor.state else 0, tensor.dtype)
    outputs = OnnxRuntimeSession(body, spec, loaded=load(body, spec.name, once=True)).run(feed)
    if made is None and heads.placing:
        return Answer(picture, outputs, {}, frozenset())
    views = [] if made is None else [view_of((picture.shape[0], picture.shape[1]), made)]
    arrays = {**{name: outputs[name] for name in heads.unread}, **heads.decode(outputs, views)}
    _check_numbers(spec.name, outputs, np.isnan if _IMAGE not in heads.named else _no_number)
    if _IMAGE in heads.named:
        _check_colours(spec.name, picture, np.asarray(arrays[_IMAGE]))
    labels = {name: tensor.labels for name, tensor in heads.named.items() if tensor.labels}
    return Answer(picture, arrays, labels, frozenset(heads.named))


def _no_number(array: Array) -> Array:
    return np.asarray(~np.isfinite(array))


def _check_numbers(name: str, outputs: Mapping[str, Array], wrong: Callable[[Array], Array]) -> None:
    """Refuse a network that overflows, as some do in fp16. Scores may be infinite, values of pixels may not."""
    if any(wrong(array).any() for array in outputs.values() if np.asarray(array).dtype.kind == "f"):
        raise ModelError(f"model {name}: its answer to the picture has values that are not finite", _OVERFLOW)


def _check_colours(name: str, picture: Array, made: Array) -> None:
    """Refuse a network of pictures whose answer is one colour, as that of GFPGAN in fp16."""
    if np.ptp(picture) > 0 and made.size > 3 and np.ptp(made.reshape(-1, made.shape[-1]), axis=0).max() == 0:
        raise ModelError(f"model {name}: its answer to the picture is one flat colour", _OVERFLOW)


def _at_height(picture: Array, spec: ModelSpec) -> Array:
    """Return a picture as high as a model wants that takes any width: one that reads lines of text."""
    for tensor in spec.inputs:
        height = tensor.shape[-3] if tensor.picture and tensor.picture.layout == "rgb" else None
        if tensor.picture and tensor.picture.size == "source" and isinstance(height, int):
            size = max(1, round(picture.shape[1] * height / picture.shape[0])), height
            return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
    return picture


def _of_tiles(session: "OnnxRuntimeSession", heads: Heads, spec: PictureSpec, picture: Array) -> Mapping[str, Value]:
    tiles, name = Tiles(Source(_made(picture, spec)[None]), spec), session.spec.inputs[0].name
    for number in range(len(tiles)):
        outputs = session.run({name: np.asarray(RowBatch([tiles.chosen(number, number + 1)]))})
        tiles.put(number, heads.decode(outputs, tiles.views[:1]))
    return tiles.made


def _made(picture: Array, spec: PictureSpec) -> Array:
    """Return the picture as the model's input, made as workers make it."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
    return Picture(spec).convert(frame)[0]


# in words


def sentences(found: Answer) -> Iterator[str]:
    """Yield a line for each result, the highest score first."""
    arrays = {name: _row(value) for name, value in found.arrays.items()}
    listed = [name for name in _LISTED if name in found.named]
    if listed:
        yield from _counted(found, arrays, listed[0])
    for name, row in arrays.items():
        if not listed or name not in (*_LISTED, "scores"):
            yield f"{name}: {_described(name, row, found.labels.get(name, ()))}"


def _counted(found: Answer, arrays: Mapping[str, Array], name: str) -> Iterator[str]:
    rows, scores = arrays[name], arrays.get("scores")
    if name == "boxes" or not len(rows):
        yield f"{len(rows)} {_ONE[name] if len(rows) == 1 else name}"
    numbers = arrays.get("classes", rows) if name == "boxes" else rows
    labels = found.labels.get("classes" if name == "boxes" else name, ())
    for at in range(min(len(rows), _MOST_LINES)):
        number = int(numbers[at]) if name != "boxes" or "classes" in arrays else 0
        words = [labels[number] if number < len(labels) else f"class {number}"]
        words += [f"{float(scores[at]):.2f}"] if scores is not None else []
        if name == "boxes":
            left, top, right, bottom = (round(float(side)) for side in rows[at])
            words.append(f"from {left}, {top} to {right}, {bottom}")
        yield " ".join(words)
    if len(rows) > _MOST_LINES:
        yield f"and {len(rows) - _MOST_LINES} more"


def _described(name: str, row: Array, labels: Sequence[str]) -> str:
    what = describe(row.dtype.name, row.shape)
    if not row.size:
        return what
    if name == "mask":
        numbers, counts = np.unique(row, return_counts=True)
        order = np.argsort(-counts)[:_MOST_LINES]
        shares = (
            f"{labels[n] if n < len(labels) else n} {c / row.size:.0%}"
            for n, c in zip(numbers[order], counts[order], strict=True)
        )
        return f"{what}, {', '.join(shares)}"
    if name == "embedding":
        return f"{what}, length {np.linalg.norm(row.astype(np.float64)):.3g}"
    return f"{what}, from {row.min():.3g} to {row.max():.3g}"


def _row(value: Value) -> Array:
    return np.asarray(value.row(0) if isinstance(value, Ragged) else value[0] if np.ndim(value) else value)


# drawn


def drawn(found: Answer) -> Image.Image | None:
    """Return the picture with the results drawn, or the picture that the model made; None if nothing can be drawn."""
    arrays = {name: _row(value) for name, value in found.arrays.items() if name in found.named}
    if "image" in arrays:
        return Image.fromarray(arrays["image"].astype(np.uint8).squeeze())
    if "alpha" in arrays:
        return Image.fromarray(arrays["alpha"].astype(np.uint8))
    if "depth" in arrays:
        depth = arrays["depth"].astype(np.float64)
        span = float(np.ptp(depth)) or 1.0
        return Image.fromarray(((depth - depth.min()) / span * 255).astype(np.uint8))
    if not any(name in arrays for name in DRAWN):
        return None
    objects = Objects(**{name: arrays[name] for name in ROWS if name in arrays}) if "boxes" in arrays else None
    labels = {name: tuple(words) for name, words in found.labels.items()}
    channels = [np.array(found.picture[..., number]) for number in range(3)]
    Finding((0, 0), objects, arrays, labels, Wanted()).draw(Canvas(HostSurface(channels), channel_paint(3)))
    return Image.fromarray(np.stack(channels, axis=-1))


def save(image: Image.Image, path: Path) -> None:
    """Write a picture in the format of its suffix. Raises ModelError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    except (OSError, ValueError) as error:
        in_the_way = isinstance(error, FileExistsError | NotADirectoryError)
        of_system = getattr(error, "strerror", None)
        reason = "a file is where its folder would be" if in_the_way else of_system or "no picture has such a suffix"
        raise ModelError(f"cannot write {path}: {reason}", "choose another --show, ending in .png or .jpg") from error
