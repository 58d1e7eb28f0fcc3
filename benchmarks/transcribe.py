"""Transcripts beside faster-whisper's own script: `python -m benchmarks.transcribe FOLDER SPEECH.wav [--seconds 240]`.

FOLDER is a Whisper as faster-whisper has it, and SPEECH.wav is repeated, with a second of silence between, until the
sound is long enough. The script (`benchmarks.peers.plain_transcriber`) is one process with a thread for each core;
rigflow has a worker for each core. Both compute in int8_float32, with a beam of 5 and times of words. They run by
turns, each warm, and the number of equal words is counted: chunks begin at other places where windows are cut.

The first run of rigflow is to warm up: `first_s` has the seconds from the start of its fleet to the first part of the
text, and those of the later runs from the start of the job. `memory` is the resident memory in MB of the workers, of
the client and of the broker, every tenth of each later run.

FOLDER may also be a Whisper in ONNX as optimum exports it, with a merged decoder: the script is then a plain loop of
beam search over the same graphs (`benchmarks.peers.plain_whisper_onnx`), with times of words.
`benchmarks.whisper_onnx` compares the same without a broker. `--device cuda:0` runs both on a GPU.
"""

import argparse
import asyncio
import hashlib
import json
import os
import sys
import tempfile
import time
import wave
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, Protocol

import numpy as np

from benchmarks import measure
from benchmarks.contest import Meter
from benchmarks.peers.plain_transcriber import Transcriber
from benchmarks.peers.plain_whisper_onnx import PlainWhisper
from benchmarks.peers.rigflow import LocalFleet, Models
from engines.content import Content, ModelFiles, graph_of
from engines.inference.whisper_decoder import MERGED
from engines.models.catalogue import own_model
from engines.models.folder_kinds import described, kind_of_folder, take_folder
from engines.models.proposal import propose
from engines.models.store import new_files
from pipelines.registry import builtin_pipeline
from schemas.errors import UsageError
from schemas.model import ModelSpec
from schemas.pipeline import PipelineSpec

PRECISION, RATE = "int8_float32", 16_000
MEMORY_EVERY_S, WARM_UP_S = 5.0, 240.0
LEAST_ALIKE = 0.7  # share of words; small networks lose a sentence here or there, with either chunks


def repeated(speech: Path, seconds: float, path: Path) -> Path:
    """A wav of 16 kHz of that length."""
    import av

    resampler = av.AudioResampler("s16", "mono", RATE)
    with av.open(str(speech)) as file:
        frames = [part for frame in file.decode(audio=0) for part in resampler.resample(frame)]
    once = np.concatenate([part.to_ndarray()[0] for part in [*frames, *resampler.resample(None)]])
    sound = np.resize(np.concatenate([once, np.zeros(RATE, np.int16)]), round(seconds * RATE))
    with wave.open(str(path), "wb") as made:
        made.setnchannels(1)
        made.setsampwidth(2)
        made.setframerate(RATE)
        made.writeframes(sound.astype("<i2").tobytes())
    return path


class Watch:
    """Reads the memory of the processes of a run every few seconds, and keeps when the first part came."""

    def __init__(self, began_s: float) -> None:
        self.first_s: float | None = None
        self._began_s = began_s
        self._series: list[dict[str, int]] = []
        self._reading = asyncio.create_task(self._read())

    def arrived(self) -> None:
        """A part of the text came."""
        self.first_s = self.first_s or time.perf_counter() - self._began_s

    async def _read(self) -> None:
        while True:
            held: dict[str, int] = {}
            for pid in measure.tree():
                role = measure.role_of(pid)
                held[role] = held.get(role, 0) + measure.rss_bytes([pid])
            self._series.append({role: round(held[role] / 1e6) for role in sorted(held)})
            await asyncio.sleep(MEMORY_EVERY_S)

    def stop(self) -> list[dict[str, int]]:
        """The memory in MB by role: at each tenth of the run, and at its end."""
        self._reading.cancel()
        step = max(1, len(self._series) // 10)
        return [*self._series[:-1:step], self._series[-1]]


class Script(Protocol):
    """What rigflow is compared with."""

    def transcribe(self, sound: Path, out: Path) -> list[str]:
        """The words of a file."""
        ...


@contextmanager
def models_of(folder: Path, speech: bool = True) -> Iterator[dict[str, tuple[ModelSpec, Content]]]:
    """The models of the pipeline, with the Whisper of a folder, while the block runs; with `speech` also Silero's."""
    if (kind := kind_of_folder(folder)) is None:
        raise UsageError(f"{folder} is no Whisper of faster-whisper or optimum", "give its folder")
    name = folder.resolve().name
    with new_files() as new:
        content = take_folder(folder, kind, new).content
        card = propose(folder / kind.main, content, name).card()
        model = described(card.model_copy(update={"sha256": hashlib.sha256(graph_of(content)).hexdigest()}), content)
        assert model is not None, "it is one of a folder"
        yield {name: (model, content), **({"silero-vad": own_model("silero-vad")} if speech else {})}


def script_of(folder: Path, device: str, threads: int, content: Content) -> Script:
    """faster-whisper's pipeline, or for a folder of ONNX a loop over its graphs."""
    if (folder / "model.bin").is_file():
        return Transcriber(folder, PRECISION, threads, device)
    assert isinstance(content, ModelFiles), "a folder has several files"
    decoder = next(each for each in content.files if each.name == f"{MERGED}.onnx")
    return PlainWhisper(folder, device, threads, decoder=content.folder / decoder.sha256)


class Run(NamedTuple):
    """A run of rigflow: its files without a suffix, its seconds, its CPU seconds, and what `Watch` saw."""

    target: Path
    seconds: float
    cpu_s: float
    first_s: float | None
    memory: list[dict[str, int]]


Task = Callable[[Path, Path, float | None], Awaitable[Run]]


def runs_of(fleet: LocalFleet, spec: PipelineSpec, models: Models) -> Task:
    """A function of a sound, of a folder for its results, and of when the first text is waited for; None: from now."""

    async def run(sound: Path, out: Path, waiting_s: float | None = None) -> Run:
        out.mkdir(parents=True)
        began_s, meter = time.perf_counter(), Meter()
        watch = Watch(began_s if waiting_s is None else waiting_s)
        [outcome] = await fleet.outcomes(spec, models, [sound], out, watch.arrived)
        seconds, cpu_s = time.perf_counter() - began_s, meter.stop()[0]
        if not outcome.ok:
            sys.exit(f"rigflow: {outcome.error or outcome.done}")
        return Run(outcome.target, seconds, cpu_s, watch.first_s, watch.stop())

    return run


async def compare(
    folder: Path, speech: Path, seconds: float, rounds: int, out: Path, device: str = "cpu"
) -> dict[str, Any]:
    """The medians of both, in seconds of sound a second, and the median of each round's ratio."""
    sound = repeated(speech, seconds, out / "sound.wav")
    short = repeated(speech, min(seconds, WARM_UP_S), out / "short.wav")
    workers = (os.cpu_count() or 1) if device == "cpu" else 1
    started_s = time.perf_counter()
    fleet = LocalFleet(workers, device=device)
    spec = builtin_pipeline("transcribe").with_fields({"transcribe.model": folder.resolve().name})
    rates: list[tuple[float, float]] = []
    cpu: list[tuple[float, float]] = []
    with models_of(folder) as models:
        await fleet.start()
        try:
            run = runs_of(fleet, spec, models)
            made = [await run(short, out / "short", started_s)]
            script = script_of(folder, device, workers, models[folder.resolve().name][1])
            script.transcribe(short, out / "short.srt")
            for number in range(rounds):
                made.append(own := await run(sound, out / str(number), None))
                began_s, meter = time.perf_counter(), Meter()
                words = script.transcribe(sound, out / "plain.srt")
                plain_s, plain_cpu = time.perf_counter() - began_s, meter.stop()[0]
                rates.append((seconds / plain_s, seconds / own.seconds))
                cpu.append((60 * plain_cpu / seconds, 60 * own.cpu_s / seconds))
                print(f"  script {rates[-1][0]:5.2f} s/s  rigflow {rates[-1][1]:5.2f}", flush=True)
        finally:
            await fleet.stop()
    both = {
        key: {"script": median(each[0] for each in pairs), "rigflow": median(each[1] for each in pairs)}
        for key, pairs in (("seconds_a_second", rates), ("cpu_s_a_minute", cpu))
    }
    ratio = median(own_rate / plain for plain, own_rate in rates)
    first_s = [each.first_s and round(each.first_s, 1) for each in made]
    seen = {"first_s": first_s, "memory": [each.memory for each in made[1:]]}
    return {**both, "ratio": ratio, "alike": alike(own.target, words), "workers": workers, **seen}


def alike(target: Path, words: Sequence[str]) -> float:
    """The share of words that a transcript has as the script, in order: 1 minus the word error rate."""
    rows = json.loads(Path(f"{target}.json").read_text())["segments"]
    own = [word["word"].lower() for row in rows for word in row["words"]]
    return 1 - edits(own, [word.lower() for word in words]) / max(1, len(words))


def edits(given: Sequence[str], other: Sequence[str]) -> int:
    """How many words are to be put in, left out or replaced to make one text of the other (Levenshtein)."""
    numbers = {word: number for number, word in enumerate(dict.fromkeys([*given, *other]))}
    row, places = np.arange(len(other) + 1), np.arange(len(other) + 1)
    columns = np.array([numbers[word] for word in other], np.int64)
    for word in given:
        best = row + 1
        best[1:] = np.minimum(best[1:], row[:-1] + (columns != numbers[word]))
        row = np.minimum.accumulate(best - places) + places
    return int(row[-1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where too few words are equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("speech", type=Path)
    parser.add_argument("--seconds", type=float, default=240.0, help="of sound; a window has 120")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda:0")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="rigflow-transcribe-") as name:
        run = compare(options.model, options.speech, options.seconds, options.rounds, Path(name), options.device)
        result = asyncio.run(run)
    print(json.dumps(result))
    return int(result["alike"] < LEAST_ALIKE)


if __name__ == "__main__":
    sys.exit(main())
