"""The medium of docs/extending.md, from the text of the document: by `run`, by `watch`, by raw media over NATS."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.media.limits import Limits
from engines.media.medium import Input, PipelineMedia, SplitRequest
from engines.options import check_options
from engines.outputs.thumbnail import thumbnail
from pipelines.broker import Broker
from schemas.errors import ItemTooLarge, MediaError
from schemas.pipeline import PipelineSpec, parse_pipeline
from schemas.subjects import HEADER_NAME
from tests.clips import Clip, make_clip
from tests.example_plugin import STACK_PIPELINE, forget, install, worker_with
from tests.fleet import ONE_WORKER, Fleet
from tests.raw_media import sent_raw
from workers.definitions import register

THREE_WORKERS = (("decode",), ("resize", "brightness"), ("encode", "split", "collect"))
RATE, FRAMES = 10, 47


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path, with the package of the document."""
    folder = tmp_path / "site"
    install(folder)
    monkeypatch.syspath_prepend(str(folder))
    forget()
    yield folder
    forget()


def pipeline() -> PipelineSpec:
    return parse_pipeline(STACK_PIPELINE, "stack.toml").model_copy(update={"segment_s": 0.5})


def stack(dtype: str = "u2") -> NDArray[np.generic]:
    """Flat frames, each brighter than the one before."""
    most = np.iinfo(dtype).max
    levels = np.linspace(0, most, FRAMES).astype(dtype)
    return np.ascontiguousarray(np.broadcast_to(levels[:, None, None], (FRAMES, 24, 40)))


def check(text: str) -> None:
    """A line for each window of two frames, at the time of the first: the mean of both, from 0 to 1."""
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["time"] for row in rows] == pytest.approx([number / RATE for number in range(FRAMES)])
    levels = [*np.linspace(0, 1, FRAMES), 1.0]  # the last frame is its own second
    np.testing.assert_allclose([row["brightness"] for row in rows], np.add(levels[:-1], levels[1:]) / 2, atol=1 / 200)


def test_a_run_gives_equal_results_on_one_worker_and_on_three(site: Path, tmp_path: Path) -> None:
    files = [tmp_path / "cells.npy", tmp_path / "small.npy", make_clip(tmp_path, Clip(frames=20, gop=10))]
    np.save(files[0], stack())
    np.save(files[1], stack("u1"))
    written = []
    for name, stages in (("one", ONE_WORKER), ("three", THREE_WORKERS)):
        with Fleet(stages, tmp_path / "cache", entry=worker_with(site)) as fleet:
            outcomes = fleet.run(pipeline(), files, tmp_path / name)
        assert [outcome.ok for outcome in outcomes] == [True] * 3, outcomes
        assert [outcome.kind for outcome in outcomes] == ["stack", "stack", "video"]
        assert [outcome.done.segments for outcome in outcomes if outcome.done][:2] == [10, 10]
        assert [outcome.done.frames for outcome in outcomes if outcome.done][:2] == [FRAMES, FRAMES]
        written.append([outcome.target.with_name(f"{outcome.target.name}.jsonl").read_text() for outcome in outcomes])
    assert written[0] == written[1]
    check(written[0][0])
    check(written[0][1])


def test_a_watched_folder_and_raw_media_are_done_too(site: Path, tmp_path: Path) -> None:
    incoming, out, file = tmp_path / "incoming", tmp_path / "out", tmp_path / "stack.toml"
    incoming.mkdir()
    file.write_text(STACK_PIPELINE)
    np.save(tmp_path / "cells.npy", stack())
    with Fleet(ONE_WORKER, tmp_path / "cache", entry=worker_with(site)) as fleet:
        shutil.copy(tmp_path / "cells.npy", incoming / "cells.npy")
        (incoming / "broken.npy").write_bytes((incoming / "cells.npy").read_bytes()[:5000])
        command = [sys.executable, "-m", "cli", "watch", str(file), str(incoming), "--out", str(out), "--quiet", "0.3"]
        environment = os.environ | {
            "RIGFLOW_NATS": fleet.settings.nats,
            "RIGFLOW_CACHE": fleet.settings.cache,
            "PYTHONPATH": os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            lines = "".join(process.stdout.readline() for _ in range(2))
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        assert "cells.stack.jsonl (47 frames" in lines
        assert "broken.npy: failed: broken.npy is truncated: copy it again" in lines
        check((out / "cells.stack.jsonl").read_text())
        check(asyncio.run(raw_lines(fleet, (tmp_path / "cells.npy").read_bytes())))


async def raw_lines(fleet: Fleet, body: bytes) -> str:
    """The lines of the results of raw media, as a subscriber gets them."""
    async with Broker.connected(fleet.settings, name="test") as broker:
        spec = await register(broker, fleet.settings, pipeline(), {})
        received = await sent_raw(broker, spec, "raw", body, {HEADER_NAME: "cells"})
    assert (received.done.frames, received.done.failures) == (FRAMES, ())
    return b"".join(received.arrays).decode()


def test_what_is_no_stack_is_refused_in_words(site: Path, tmp_path: Path) -> None:
    spec = pipeline()
    assert check_options(STACK_PIPELINE, "p") == []
    [error] = check_options(STACK_PIPELINE.replace("rate = 10", "rates = 10"), "p")
    assert "stage.0.rates: there is no such option: did you mean rate? there are deinterlace, fps, rate" in str(error)
    few = SplitRequest(spec.grid, spec.segment_s, limits=Limits(windows=99))
    medium = PipelineMedia(spec).recognised(Input(b"\x93NUMPY\x01\x00", "a"))
    for array, kind, words in (
        (np.zeros((3, 4, 5), np.float32), MediaError, r"has <f4 \[3, 4, 5\]"),
        (np.zeros((4, 5), np.uint8), MediaError, r"has \|u1 \[4, 5\]"),
        (np.zeros((0, 4, 5), np.uint8), MediaError, "has 0 frames of 5x4 pixels"),
        (np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (100, 1, 1), (0, 0, 0)), ItemTooLarge, "windows"),
    ):
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(kind, match=words):
            list(medium.split([Input(tmp_path / "a.npy", "a.npy")], few))
    np.save(tmp_path / "a.npy", stack())
    with pytest.raises(MediaError, match="no picture is made of this kind of media"):
        thumbnail(tmp_path / "a.npy", 0.0, (90, 160))
