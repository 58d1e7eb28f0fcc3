"""Whisper in ONNX beside a plain loop over the same graphs: `python -m benchmarks.whisper_onnx FOLDER SPEECH.wav`.

FOLDER is an export of optimum with a merged decoder. SPEECH.wav is repeated, and cut into chunks of 28 s, four of them
a window as `transcribe` has them. The loop (`benchmarks.peers.plain_whisper_onnx`) and rigflow's stage `transcribe`, in
this process and without a broker, take turns over the same chunks, without times of words; both with the same number of
chunks at a time. It prints seconds of sound a second, the ratio of each round, CPU seconds a minute of sound, and what
rigflow takes with times of words. `--device cuda:0` measures a GPU.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.peers.plain_whisper_onnx import CHUNK_S, RATE, PlainWhisper
from benchmarks.transcribe import models_of, repeated
from engines.inference.resident import GpuPlace, HostPlace
from engines.inference.whisper_onnx import WhisperOnnxSession
from engines.operators.transcribe import Transcribe
from engines.part import Part, no_tick
from schemas.pipeline import OperatorStage
from tests.speech import sound_part

WINDOW = 4  # chunks


class Stage:
    """The stage `transcribe` with a session on a device."""

    def __init__(self, folder: Path, device: str, tf32: bool, beam: int) -> None:
        name = folder.resolve().name
        with models_of(folder, speech=False) as models:
            card, content = models[name]
            place: Any = HostPlace(name)
            self._gpu: Any = None
            if device != "cpu":
                from engines.cuda.gpu import CudaGpu

                self._gpu = CudaGpu(device, Path(tempfile.mkdtemp(prefix="rigflow-")))
                place = GpuPlace(name, self._gpu, tf32)
            self.session = WhisperOnnxSession(content, card, place)
        self.stages = [
            Transcribe(
                OperatorStage(
                    kind="transcribe",
                    name="transcribe",
                    model=name,
                    max_batch=WINDOW,
                    options={"language": "en", "words": words, "beam": beam, "compression": 1000.0},
                ),
                card,
            )
            for words in (False, True)
        ]

    def close(self) -> None:
        """Leave the device: CUDA ends a process that has not left it."""
        self.session.close()
        if self._gpu is not None:
            self._gpu.leave()
            self._gpu.close()

    def texts(self, parts: Sequence[Part], words: bool) -> list[str]:
        """The texts of all chunks; each part is a batch."""
        made = [self.stages[words].run([part], self.session, no_tick)[0] for part in parts]
        if errors := [each for each in made if not isinstance(each, Part)]:
            sys.exit(f"rigflow: {errors[0]}")
        return [part.arrays["text"].row(n).tobytes().decode() for part in made for n in range(len(part.meta.pts))]


def timed(method: Callable[[], list[str]]) -> tuple[float, float, list[str]]:
    """Wall seconds, CPU seconds of this process, and the texts."""
    began, cpu = time.perf_counter(), time.process_time()
    texts = method()
    return time.perf_counter() - began, time.process_time() - cpu, texts


def measure(given: argparse.Namespace, sound: Path) -> dict[str, Any]:
    """Let both take turns; the first round is to warm up."""
    with wave.open(str(sound)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
    step = CHUNK_S * RATE
    chunks = [samples[first : first + step] for first in range(0, len(samples), step)]
    windows = [chunks[first : first + WINDOW] for first in range(0, len(chunks), WINDOW)]
    parts = [
        sound_part(window, [CHUNK_S * (WINDOW * number + place) for place in range(len(window))], number)
        for number, window in enumerate(windows)
    ]
    loop = PlainWhisper(given.model, given.device, 1, given.beam, WINDOW)
    stage = Stage(given.model, given.device, given.tf32, given.beam)
    seconds, rounds = len(samples) / RATE, []
    for number in range(-1, given.rounds):
        plain = timed(lambda: [text for window in windows for text in loop.texts(window)])
        own = timed(lambda: stage.texts(parts, False))
        timestamped = timed(lambda: stage.texts(parts, True))
        if number < 0:
            continue
        rounds.append((plain, own, timestamped))
        print(f"  loop {seconds / plain[0]:.2f} s/s  rigflow {seconds / own[0]:.2f}", file=sys.stderr, flush=True)
    stage.close()
    names = ("loop", "rigflow", "rigflow with times of words")
    equal = sum(a.split() == b.split() for a, b in zip(rounds[-1][0][2], rounds[-1][1][2], strict=True))
    return {
        "device": given.device,
        "seconds_a_second": {name: seconds / median(each[n][0] for each in rounds) for n, name in enumerate(names)},
        "cpu_s_a_minute": {name: 60 * median(each[n][1] for each in rounds) / seconds for n, name in enumerate(names)},
        "ratio": median(plain[0] / own[0] for plain, own, _ in rounds),
        "equal_texts": f"{equal} of {len(chunks)}",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("speech", type=Path)
    parser.add_argument("--seconds", type=float, default=240.0, help="of sound")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--tf32", action="store_true", help="lets rigflow's session use TF32, as the loop's does")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="rigflow-whisper-") as name:
        os.environ["HOME"] = name  # files of the model are kept there
        print(json.dumps(measure(given, repeated(given.speech, given.seconds, Path(name) / "sound.wav"))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
