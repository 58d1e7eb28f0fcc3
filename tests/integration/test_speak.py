"""speak: one worker, three, and workers that are killed make equal files of the same texts."""

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from engines.models.catalogue import models_folder, save_model
from engines.models.cloning import cloned
from engines.models.proposal import propose
from engines.models.store import find, new_files
from schemas.pipeline import PipelineSpec
from tests.cli import rigflow
from tests.fleet import ONE_WORKER, Fleet, Killing
from tests.pockets import write_pocket
from tests.voices import RATE, write_piper
from tests.zipvoices import WORDS, reference, write_wav, write_zipvoice
from workers.definitions import find_pipeline

BOOK = "".join(f"This is sentence {n}, of a book. Is it? Yes!\n\n" for n in range(20))
TEXTS = {
    "book.txt": BOOK,
    "marks.txt": "... !? -- *",
    "emoji.md": "# 🙂\n\n🎉 party",
    "other.txt": "Это русский. 漢字。",
    "asked.jsonl": '{"id": "q1", "prompt": "one line. two."}\n{"broken\n' + json.dumps({"text": "a" * 30_000}) + "\n",
}


@pytest.fixture(autouse=True)
def _voice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "consent.txt").write_text("I, Ada, allow it.")
    zipvoice, sound = write_zipvoice(tmp_path / "zipvoice"), write_wav(tmp_path / "ada.wav", reference())
    with new_files() as new:
        found = find(write_piper(tmp_path), new)
        save_model(models_folder(), propose(found.path, found.content, found.name).card(), found.content)
        pocket = write_pocket(tmp_path / "pocket")
        for name, folder, words in (("ada", zipvoice, WORDS), ("bea", pocket, "")):
            found, _ = cloned(folder, sound, words, tmp_path / "consent.txt", new)
            card = propose(found.path, found.content, name).card()
            save_model(models_folder(), card.model_copy(update={"files": found.taken.files}), found.content)


def speak(model: str = "tones", **options: Any) -> PipelineSpec:
    spec = find_pipeline("speak")[0]
    stages = [
        stage.model_copy(update={"model": model, "options": options}) if stage.kind == "speak" else stage
        for stage in spec.stage
    ]
    return spec.model_copy(update={"stage": tuple(stages)})


def written(folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name, text in TEXTS.items():
        (folder / name).write_text(text)
    return [folder / name for name in TEXTS]


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def shortened(folder: Path) -> Path:
    """A file with the first sentences of the book."""
    path = folder / "short.txt"
    path.write_text(BOOK[:400])
    return path


def samples(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        assert container.streams.audio[0].rate == RATE
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


def test_one_worker_three_and_kills_give_equal_files(tmp_path: Path) -> None:
    files, spec = written(tmp_path / "texts"), speak(noise=1.0, seed=7)
    short = shortened(tmp_path)
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        [outcome] = fleet.run(spec, files, tmp_path / "one")
        [alone] = fleet.run(spec, files[:1], tmp_path / "alone")
        [ada] = fleet.run(speak("ada", steps=2), [short], tmp_path / "ada-one")
        [bea] = fleet.run(speak("bea", steps=3, seed=5), [short], tmp_path / "bea-one")
    with Fleet(ONE_WORKER * 3, tmp_path / "cache") as fleet:
        fleet.run(spec, files, tmp_path / "three", Killing(fleet))
        fleet.run(speak("ada", steps=2), [short], tmp_path / "ada-three")
        fleet.run(speak("bea", steps=3, seed=5), [short], tmp_path / "bea-three")
    found = digests(tmp_path / "one")
    assert found == digests(tmp_path / "three")
    assert {Path(name).stem for name in found} == {"book", "marks", "emoji", "other", "q1"}
    assert outcome.done is not None
    broken, long = sorted(outcome.done.failures)
    assert "it is no JSON" in broken
    assert "a text of 30000 characters is too long to be spoken in one piece, at most 20000: cut it" in long
    assert "a text without letters and digits became no sound" in " ".join(outcome.done.notes)
    assert alone.ok
    assert [*digests(tmp_path / "ada-one")] == ["short.speak.wav"]
    assert digests(tmp_path / "ada-one") == digests(tmp_path / "ada-three")
    assert [*digests(tmp_path / "bea-one")] == ["short.speak.wav"]
    assert digests(tmp_path / "bea-one") == digests(tmp_path / "bea-three")
    for name, each in (("ada", ada), ("bea", bea)):
        assert each.done is not None
        assert f"cloned voice {name}, consent consent.txt sha256 " in " ".join(each.done.notes)
    [wav] = (tmp_path / "alone").iterdir()
    assert wav.name == "book.speak.wav"
    book = samples(wav)
    np.testing.assert_array_equal(book, samples(next((tmp_path / "one").rglob("book.wav"))))
    # 60 sentences, and exact silence between them
    quiet = np.flatnonzero(np.diff(np.concatenate([[1], book != 0, [1]]).astype(int)))
    gaps = [stop - start for start, stop in zip(quiet[::2], quiet[1::2], strict=True) if stop - start > 0.3 * RATE - 1]
    assert len(gaps) == 59


@pytest.mark.slow
@pytest.mark.parametrize("voice", ["ada", "bea"])
def test_a_cloned_voice_is_equal_where_a_worker_is_killed(voice: str, tmp_path: Path) -> None:
    """Apart from the others, because what a killed worker held is given out again after 10 s."""
    short = shortened(tmp_path)
    with Fleet(ONE_WORKER * 3, tmp_path / "cache") as fleet:
        [whole] = fleet.run(speak(voice, steps=2), [short], tmp_path / "whole")
        [killed] = fleet.run(speak(voice, steps=2), [short], tmp_path / "killed", Killing(fleet))
    assert whole.ok
    assert killed.ok
    assert digests(tmp_path / "whole") == digests(tmp_path / "killed")


def test_the_command_makes_files_and_says_what_is_missing(tmp_path: Path) -> None:
    story = tmp_path / "story.txt"
    story.write_text("Hello there. General.")
    done = rigflow("run", "speak", story, "--model", "tones", "--set", "encode.file=opus", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["story.speak.opus"]
    missing = rigflow("run", "speak", story, "--out", tmp_path / "out")
    assert missing.returncode != 0
    assert "download en_US-ljspeech-medium.onnx and en_US-ljspeech-medium.onnx.json from https://" in missing.stderr
    other = rigflow("run", "speak", story, "--model", "fingerprint", "--out", tmp_path / "out")
    assert "model `fingerprint` does not speak: add a voice of Piper, Kokoro or Matcha" in other.stderr
    if importlib.util.find_spec("espeakng_loader") is None:
        rigflow("model", "add", write_piper(tmp_path, "words", "espeak"), "--yes")
        extra = rigflow("run", "speak", story, "--model", "words", "--out", tmp_path / "out")
        assert "espeak-ng, which is not installed here: install the extra phonemes: " in extra.stderr
    voice = rigflow("run", "speak", story, "--model", "tones", "--set", "speak.voice=joe", "--out", tmp_path / "out")
    assert "the model has no voice joe: it has one, without a name" in voice.stderr
