"""A plain script: one loop over PyAV's frames, one ONNX Runtime session.

It opens, decodes, samples, batches and runs the model by itself; it shares with rigflow how a picture is resized and
what the files look like that it writes. `decode_threads` is PyAV's `thread_type`, `model_threads` ONNX Runtime's
`intra_op_num_threads` (0: its default, all cores).
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import onnxruntime

from benchmarks.chain import JOB, Answer, Arrived, Finished, Task, write
from engines.outputs.format import load_format
from engines.part import Array, Part
from engines.pictures import HostPictures
from engines.plan import plan_pipeline
from schemas.jobs import Key
from schemas.media import Item, MediaInfo
from schemas.parts import PartMeta

KEY = Key(job=JOB, segment=0)
Row = dict[str, Array]


class Script:
    """Everything in this one process."""

    def __init__(self, task: Task, workers: int, decode_threads: str = "AUTO", model_threads: int = 0) -> None:
        self._task = task
        self._threads = decode_threads
        self._model_threads = model_threads

    async def start(self) -> None:
        spec = self._task.spec
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._model_threads
        self._stage = spec.operators[-1]
        self._card, model = self._task.models[self._stage.model]
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        plan = plan_pipeline(spec, {name: card for name, (card, _) in self._task.models.items()})
        self._preprocess = HostPictures(plan.decode.pictures)
        self._format = load_format(spec.encode)
        self._window = spec.decode.window
        self._fps = Fraction(str(spec.decode.fps)) if spec.decode.fps else None

    async def run(self, paths: Sequence[Path], out: Path, arrived: Arrived) -> None:
        finished = []
        pictures = self._images(paths) if paths[0].suffix == ".jpg" else None
        for file in range(1 if pictures else len(paths)):
            answers = []
            for answer in pictures or self._video(paths[file]):
                arrived()
                answers.append(answer)
            finished.append(Finished(file, 0, answers))
        write(self._task, paths, finished, out)

    async def stop(self) -> None:
        del self._session

    def broker_bytes(self) -> int:
        return 0

    def _images(self, paths: Sequence[Path]) -> Iterator[Answer]:
        media = MediaInfo(kind="image", timed=False)
        for first in range(0, len(paths), self._stage.max_batch):
            batch = paths[first : first + self._stage.max_batch]
            rows = []
            for path in batch:
                decoder = av.CodecContext.create("mjpeg", "r")
                assert isinstance(decoder, av.VideoCodecContext)
                decoder.thread_type = self._threads
                (frame,) = [*decoder.decode(av.Packet(path.read_bytes())), *decoder.decode(None)]
                rows.append(self._preprocess.convert(frame))
            items = tuple(Item(name=path.name) for path in batch)
            meta = PartMeta(key=KEY, media=media, pts=(0,) * len(rows), items=items)
            yield self._answer(meta, [[row] * self._window.frames for row in rows])

    def _video(self, path: Path) -> Iterator[Answer]:
        windows = self._windows(self._ticks(path))
        while batch := list(islice(windows, self._stage.max_batch)):
            meta = PartMeta(key=KEY, media=self._media, pts=tuple(pts for pts, _ in batch), frames=len(batch))
            yield self._answer(meta, [rows for _, rows in batch])

    def _windows(self, ticks: Iterator[tuple[int, Row]]) -> Iterator[tuple[int, list[Row]]]:
        """The time and the pictures of each window; one that looks beyond the end sees the last frame there."""
        length, stride = self._window.frames, self._window.stride
        held: list[tuple[int, Row]] = []
        skipped = 0
        for tick in ticks:
            if skipped:
                skipped -= 1
                continue
            held.append(tick)
            if len(held) == length:
                yield held[0][0], [row for _, row in held]
                held, skipped = held[stride:], max(0, stride - length)
        while held:
            rows = [row for _, row in held]
            yield held[0][0], rows + [self._last] * (length - len(rows))
            held = held[stride:]

    def _ticks(self, path: Path) -> Iterator[tuple[int, Row]]:
        """The picture that each tick of the sampling rate sees: the last one that is not after it."""
        before: av.VideoFrame | None = None
        number = 0
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.thread_type = self._threads
            for frame in container.decode(stream):
                assert frame.pts is not None
                if before is None:
                    self._media = media_of(stream, frame)
                if self._fps is None:
                    self._last = self._preprocess.convert(frame)
                    yield frame.pts, self._last
                elif before is not None and self._due(number) < frame.pts:
                    row = self._preprocess.convert(before)
                    while (due := self._due(number)) < frame.pts:
                        yield due, row
                        number += 1
                before = frame
        if self._fps is not None and before is not None and before.pts is not None:
            self._last = self._preprocess.convert(before)
            while (due := self._due(number)) <= before.pts:
                yield due, self._last
                number += 1

    def _due(self, number: int) -> int:
        assert self._fps is not None
        clock = self._media.clock
        return clock.origin + int(number / (self._fps * clock.time_base))

    def _answer(self, meta: PartMeta, windows: list[list[Row]]) -> Answer:
        """The model over one batch of windows, and what the files hold of it."""
        name = self._card.inputs[0].name
        if self._stage.each:  # a model of single planes
            planes = {plane: np.stack([rows[0][plane] for rows in windows]) for plane in windows[0][0]}
            arrays = {plane: self._session.run(None, {name: pixels})[0] for plane, pixels in planes.items()}
        else:
            pixels = np.stack([np.stack([row["pixels"] for row in rows]) for rows in windows])
            outputs = self._session.run(None, {name: pixels})
            arrays = dict(zip([each.name for each in self._card.outputs], outputs, strict=True))
            if self._stage.keeps:
                arrays["pixels"] = pixels.reshape(-1, *pixels.shape[2:])
                arrays["index"] = np.arange(len(arrays["pixels"]), dtype=np.int32).reshape(len(windows), -1)
        encoded = self._format.encode(Part(meta, arrays))
        return meta, encoded.arrays, encoded.facts


def media_of(stream: av.VideoStream, first: av.VideoFrame) -> MediaInfo:
    """What the written files say of their source."""
    assert stream.time_base is not None
    assert first.pts is not None
    rate, aspect = stream.average_rate or Fraction(25), stream.sample_aspect_ratio or Fraction(1)
    return MediaInfo(
        kind="video",
        width=first.width,
        height=first.height,
        time_base=stream.time_base.as_integer_ratio(),
        origin=first.pts,
        pixel_format=first.format.name,
        frame_rate=rate.as_integer_ratio(),
        sample_aspect=aspect.as_integer_ratio(),
        color_range=int(first.color_range),
        color_space=int(first.colorspace),
    )


make = Script
