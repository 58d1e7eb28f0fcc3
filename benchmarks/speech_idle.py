"""How long a fast device waits for sound: `python -m benchmarks.speech_idle FOLDER SPEECH.wav [--minutes 15 30 60]`.

FOLDER is a Whisper as faster-whisper has it, and SPEECH.wav is repeated until the sound is long enough. One worker runs
`transcribe` with a device that stands in for a GPU: it decodes ahead, and for a batch it sleeps `--chunk-ms` for each
chunk of speech and answers with one text. Everything else is real: the broker, the cutting of the sound, the network
that finds speech, the bands of sound, times of words, subtitles. An H200 takes some 20 ms a chunk with tiny.en.
With `--one-thread` the host's steps are run by the thread that waits for the device. `--device cuda:0` measures a GPU
and Whisper themselves.

It prints, of each length, the seconds from the start of the job to its end, the share of them in which the device was
idle, and where: before the first batch, between batches, and after the last one; the longest pauses between batches,
each with the second of the job at which it began; and the CPU seconds of all processes.
"""

import argparse
import asyncio
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np

import engines.device
import engines.inference.whisper
from benchmarks.contest import Meter
from benchmarks.transcribe import models_of, repeated
from engines.inference.whisper import WhisperSession
from pipelines.registry import builtin_pipeline
from schemas.jobs import Priority
from schemas.parts import PartMeta
from schemas.rig import ALL_STAGES
from tests.fleet import Fleet, Silent
from tests.prefetching import PrefetchingHost
from workers.options import WorkerOptions
from workers.process import start_worker
from workers.run import run_jobs

TEXT = " The fleet takes sound in pieces, and each of its rigs writes down what it hears there: a word, a name, a long"
TEXT += (
    " number. Nobody waits for the slowest card, since whoever is free fetches the next piece of sound from the queue."
)
SHARES = (0.3, 0.6, 0.1)  # of the time of a chunk: encoder, search, alignment
WARM_UP_S = 240.0
PAUSES = 4  # that are printed


class StandIn(PrefetchingHost):
    """A device beside the host, as a GPU is."""

    host_is_free = True

    def __init__(self, settings: Any) -> None:
        super().__init__(settings, 4)


class SimulatedModel:
    """CTranslate2's Whisper, on a device that takes `chunk_ms` for a chunk. `log`: a line a call, begin and end."""

    def __init__(self, session: WhisperSession, chunk_ms: float, log: Path) -> None:
        self._ids = session.tokenizer.encode(TEXT, add_special_tokens=False).ids
        self._chunk_s = chunk_ms / 1000
        self._log = log.open("a", buffering=1)

    def _work(self, call: int, rows: int) -> None:
        began_s = time.monotonic()
        time.sleep(SHARES[call] * rows * self._chunk_s)
        self._log.write(f"{began_s} {time.monotonic()}\n")

    def encode(self, features: Any) -> Any:
        self._work(0, features.shape[0])
        return features

    def generate(self, states: Any, prompts: Sequence[Any], **options: Any) -> list[Any]:
        self._work(1, len(prompts))
        return [SimpleNamespace(sequences_ids=[self._ids], scores=[-0.2], no_speech_prob=0.0) for _ in prompts]

    def align(self, states: Any, start: Any, texts: Sequence[Any], frames: Sequence[int], **options: Any) -> list[Any]:
        self._work(2, len(texts))
        return [_aligned(len(text), most // 2) for text, most in zip(texts, frames, strict=True)]

    def detect_language(self, states: Any) -> list[Any]:
        self._work(0, states.shape[0])
        return [[("<|en|>", 0.99)]] * states.shape[0]


class NotedModel:
    """CTranslate2's Whisper itself. `log`: a line a call, begin and end."""

    def __init__(self, session: WhisperSession, log: Path) -> None:
        self._model, self._log = session._model, log.open("a", buffering=1)

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._model, name)

        def noted(*given: Any, **options: Any) -> Any:
            began_s = time.monotonic()
            try:
                return call(*given, **options)
            finally:
                self._log.write(f"{began_s} {time.monotonic()}\n")

        return noted


def _aligned(tokens: int, states: int) -> Any:
    path = list(zip(np.linspace(0, tokens, states, endpoint=False).astype(int).tolist(), range(states), strict=True))
    return SimpleNamespace(text_token_probs=[0.9] * tokens, alignments=path)


class MeasuredSession(WhisperSession):
    """The session of a GPU, whose batches have chunks of one window, with a model of these."""

    model: Any = None

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._on_cpu = self.any_batch = False
        self._model = type(self).model(self)


def start_stand_in(
    chunk_ms: float, log: Path, apart: bool, options: WorkerOptions, heartbeats: socket.socket | None
) -> None:
    """Run a worker whose device is the stand-in, or a GPU if it is given one."""
    MeasuredSession.model = partial(NotedModel, log=log)
    if options.device == "cpu":
        StandIn.host_is_free = apart
        engines.device.Host = StandIn  # type: ignore[attr-defined, misc]
        MeasuredSession.model = partial(SimulatedModel, chunk_ms=chunk_ms, log=log)
    engines.inference.whisper.WhisperSession = MeasuredSession  # type: ignore[misc]
    start_worker(options, heartbeats)


class FirstPart(Silent):
    """Keeps when the first text came."""

    first_s = 0.0

    def part(self, job: str, meta: PartMeta) -> None:
        self.first_s = self.first_s or time.monotonic()


def waits(began_s: float, ended_s: float, calls: np.ndarray[Any, Any]) -> dict[str, Any]:
    """What became of the seconds of a job; `calls [N, 2]`: when the device began and ended."""
    calls = calls[(calls[:, 0] >= began_s) & (calls[:, 1] <= ended_s)]
    total_s = ended_s - began_s
    busy_s = float((calls[:, 1] - calls[:, 0]).sum())
    first_s, last_s = float(calls[0, 0]) - began_s, ended_s - float(calls[-1, 1])
    between_s = total_s - busy_s - first_s - last_s
    found = {"seconds": total_s, "idle": 1 - busy_s / total_s, "before_s": first_s, "between_s": between_s}
    pauses = calls[1:, 0] - calls[:-1, 1]
    longest = np.argsort(pauses)[: -PAUSES - 1 : -1]
    rounded = {name: round(value, 3) for name, value in {**found, "after_s": last_s}.items()}
    return {**rounded, "pauses": np.stack([calls[longest, 1] - began_s, pauses[longest]], 1).round(3).tolist()}


async def measured(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run one job after the other; of each length the one of the median time."""
    name, log = options.model.resolve().name, folder / "calls"
    spec = builtin_pipeline("transcribe").with_fields({"transcribe.model": name})
    entry = partial(start_stand_in, options.chunk_ms, log, not options.one_thread)
    found: dict[str, Any] = {}
    devices = (options.device,)
    with (
        models_of(options.model) as models,
        Fleet((ALL_STAGES,), folder / "cache", entry=entry, devices=devices) as fleet,
    ):

        async def job(seconds: float, number: int) -> dict[str, Any]:
            sound = repeated(options.speech, seconds + number, folder / "sound.wav")  # another sound: another job
            listener, began_s, meter = FirstPart(), time.monotonic(), Meter()
            out = folder / f"{seconds}-{number}"
            out.mkdir()
            [outcome] = await run_jobs(fleet.settings, spec, models, [sound], out, Priority.BULK, listener)
            ended_s, cpu_s = time.monotonic(), meter.stop()[0]
            if not outcome.ok:
                sys.exit(f"rigflow: {outcome.error or outcome.done}")
            made = waits(began_s, ended_s, np.loadtxt(log, ndmin=2))
            return {**made, "first_text_s": round(listener.first_s - began_s, 3), "cpu_s": round(cpu_s, 3)}

        await job(WARM_UP_S, 0)
        for minutes in options.minutes:
            rounds = [await job(60 * minutes, number) for number in range(1, options.rounds + 1)]
            middle = median(each["seconds"] for each in rounds)
            found[f"{minutes:g} min"] = min(rounds, key=lambda each: abs(each["seconds"] - middle))
            print(f"  {minutes:g} min: {found[f'{minutes:g} min']}", file=sys.stderr, flush=True)
    return {"device": options.device, "chunk_ms": options.chunk_ms, "load": os.getloadavg()[0], **found}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("speech", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[15.0, 30.0, 60.0], help="of sound")
    parser.add_argument("--chunk-ms", type=float, default=20.0, help="that the device takes for a chunk of speech")
    parser.add_argument("--device", default="cpu", help="cpu: the stand-in; or a GPU, cuda:0")
    parser.add_argument("--one-thread", action="store_true", help="steps of the host wait for the device")
    parser.add_argument("--rounds", type=int, default=3, help="jobs of each length")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="rigflow-idle-") as name:
        os.environ["HOME"] = name
        print(json.dumps(asyncio.run(measured(options, Path(name)))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
