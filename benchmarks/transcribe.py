"""Transcripts beside faster-whisper's own script: `python -m benchmarks.transcribe FOLDER SPEECH.wav [--seconds 240]`.

FOLDER is a Whisper as faster-whisper has it, and SPEECH.wav is repeated, with a second of silence between, until the
sound is long enough. The script (`benchmarks.peers.plain_transcriber`) is one process with a thread for each core;
rigflow has a worker for each core. Both compute in int8_float32, with a beam of 5 and times of words. They run by
turns, each warm, and the number of equal words is counted: chunks begin at other places where windows are cut.
"""

import argparse
import asyncio
import difflib
import hashlib
import json
import os
import sys
import tempfile
import time
import wave
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.contest import Meter
from benchmarks.peers.plain_transcriber import Transcriber
from benchmarks.peers.rigflow import LocalFleet
from engines.content import Content, graph_of
from engines.models.catalogue import own_model
from engines.models.folder_kinds import described, kind_of_folder, take_folder
from engines.models.proposal import propose
from engines.models.store import new_files
from pipelines.registry import builtin_pipeline
from schemas.errors import UsageError
from schemas.model import ModelSpec

PRECISION, RATE = "int8_float32", 16_000
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


@contextmanager
def models_of(folder: Path) -> Iterator[dict[str, tuple[ModelSpec, Content]]]:
    """The models of the pipeline, with the Whisper of a folder, while the block runs."""
    if (kind := kind_of_folder(folder)) is None:
        raise UsageError(f"{folder} is no Whisper of faster-whisper", "give its folder")
    name = folder.resolve().name
    with new_files() as new:
        content = take_folder(folder, kind, new).content
        card = propose(folder / kind.main, content, name).card()
        model = described(card.model_copy(update={"sha256": hashlib.sha256(graph_of(content)).hexdigest()}), content)
        assert model is not None, "it is one of a folder"
        yield {name: (model, content), "silero-vad": own_model("silero-vad")}


async def compare(folder: Path, sound: Path, seconds: float, rounds: int, out: Path) -> dict[str, Any]:
    """The medians of both, in seconds of sound a second, and the median of each round's ratio."""
    workers = os.cpu_count() or 1
    script, fleet = Transcriber(folder, PRECISION, workers), LocalFleet(workers)
    spec = builtin_pipeline("transcribe").with_fields({"transcribe.model": folder.resolve().name})
    rates: list[tuple[float, float]] = []
    cpu: list[tuple[float, float]] = []
    with models_of(folder) as models:
        await fleet.start()
        try:
            for number in range(-1, rounds):  # the first one is to warm up
                (made := out / str(number)).mkdir(parents=True)
                began, meter = time.perf_counter(), Meter()
                [outcome] = await fleet.outcomes(spec, models, [sound], made)
                own_s, own_cpu = time.perf_counter() - began, meter.stop()[0]
                if not outcome.ok:
                    sys.exit(f"rigflow: {outcome.error or outcome.done}")
                if number < 0:
                    continue
                began, meter = time.perf_counter(), Meter()
                words = script.transcribe(sound, made / "plain.srt")
                plain_s, plain_cpu = time.perf_counter() - began, meter.stop()[0]
                rates.append((seconds / plain_s, seconds / own_s))
                cpu.append((60 * plain_cpu / seconds, 60 * own_cpu / seconds))
                print(f"  script {rates[-1][0]:5.2f} s/s  rigflow {rates[-1][1]:5.2f}", flush=True)
        finally:
            await fleet.stop()
    both = {
        key: {"script": median(each[0] for each in pairs), "rigflow": median(each[1] for each in pairs)}
        for key, pairs in (("seconds_a_second", rates), ("cpu_s_a_minute", cpu))
    }
    ratio = median(own / plain for plain, own in rates)
    return {**both, "ratio": ratio, "alike": alike(outcome.target, words), "workers": workers}


def alike(target: Path, words: Sequence[str]) -> float:
    """The share of words that a transcript has as the script, in order."""
    rows = json.loads(Path(f"{target}.json").read_text())["segments"]
    own = [word["word"].lower() for row in rows for word in row["words"]]
    return difflib.SequenceMatcher(None, own, [word.lower() for word in words], autojunk=False).ratio()


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where too few words are equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("speech", type=Path)
    parser.add_argument("--seconds", type=float, default=240.0, help="of sound; a window has 120")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="rigflow-transcribe-") as name:
        sound = repeated(options.speech, options.seconds, Path(name) / "sound.wav")
        run = compare(options.model, sound, options.seconds, options.rounds, Path(name) / "out")
        result = asyncio.run(run)
    print(json.dumps(result))
    return int(result["alike"] < LEAST_ALIKE)


if __name__ == "__main__":
    sys.exit(main())
