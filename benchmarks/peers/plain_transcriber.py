"""A transcript as a user writes it with faster-whisper alone: its batched pipeline, and a file of subtitles."""

import wave
from pathlib import Path

import numpy as np


class Transcriber:
    """`model`: a folder of faster-whisper. `device`: cpu, with `threads` threads, or cuda:N."""

    def __init__(self, model: Path, precision: str, threads: int, device: str = "cpu") -> None:
        from faster_whisper import BatchedInferencePipeline, WhisperModel

        kind, _, number = device.partition(":")
        where = {"device": kind, "device_index": int(number or 0)}
        whisper = WhisperModel(str(model), compute_type=precision, cpu_threads=threads, **where)
        self._pipeline = BatchedInferencePipeline(whisper)

    def transcribe(self, sound: Path, out: Path) -> list[str]:
        """The words of a wav of one channel at 16 kHz; writes its subtitles."""
        with wave.open(str(sound)) as file:  # faster-whisper's own reader of files fails with PyAV 19
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
        segments, _ = self._pipeline.transcribe(samples, word_timestamps=True, batch_size=8)
        words: list[str] = []
        with out.open("w") as file:
            for number, segment in enumerate(segments, 1):
                file.write(f"{number}\n{stamp(segment.start)} --> {stamp(segment.end)}\n{segment.text.strip()}\n\n")
                words += [word.word for word in segment.words or ()]
        return words


def stamp(seconds: float) -> str:
    """Seconds as subtitles have them."""
    ms = round(1000 * seconds)
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02},{ms % 1000:03}"
