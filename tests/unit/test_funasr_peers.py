"""FunASR's front end and decoding beside kaldi-native-fbank and sherpa-onnx, which `make test-models` installs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.speech.fbank import fbank
from tests.listeners import LANGUAGES, Array, sound, write_paraformer, write_sensevoice
from tests.speech import RATE, sound_part
from tests.unit.test_funasr import SOUND, Transcribe, opened, said, stage_of, texts

pytestmark = pytest.mark.models
SOUNDS = [(seconds, seed) for seed, seconds in enumerate((0.5, 1, 2.3, 7, 20))]


def test_bands_are_those_of_kaldi_native_fbank() -> None:
    peer = pytest.importorskip("kaldi_native_fbank")
    options = peer.FbankOptions()
    options.frame_opts.dither, options.frame_opts.window_type, options.frame_opts.snip_edges = 0, "hamming", True
    options.mel_opts.num_bins, options.energy_floor = 80, 0
    for seconds, seed in SOUNDS:
        samples = sound(seconds, seed)
        bands = peer.OnlineFbank(options)
        bands.accept_waveform(RATE, (samples * 32768).tolist())
        expected = np.stack([bands.get_frame(number) for number in range(bands.num_frames_ready)])
        found = fbank(samples)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() < 5e-3  # it computes in float32, of which little is left in quiet bands
        assert np.median(np.abs(found - expected)) < 1e-5


def heard(recogniser: Any, samples: Array) -> Any:
    stream = recogniser.create_stream()
    stream.accept_waveform(RATE, samples)
    recogniser.decode_stream(stream)
    return stream.result


@pytest.mark.parametrize("times", [True, False])
def test_a_paraformer_says_what_sherpa_onnx_says(tmp_path: Path, times: bool) -> None:
    peer = pytest.importorskip("sherpa_onnx")
    path = write_paraformer(tmp_path, times=times, sherpa=True)
    recogniser = peer.OfflineRecognizer.from_paraformer(str(path), str(tmp_path / "tokens.txt"))
    session = opened(path)
    for seconds, seed in SOUNDS:
        samples = sound(seconds, seed)
        expected = heard(recogniser, samples)
        [made] = said(session, sound_part([samples]))
        assert texts(made)[0].split() == expected.text.split()
        if times and not any("@@" in token for token in expected.tokens):
            starts = [max(0.0, start - 0.03) for start in expected.timestamps]  # FunASR's shift of 1.5 units of 20 ms
            assert made.arrays["words"].row(0)[:, 0].tolist() == pytest.approx(starts, abs=1e-4)


@pytest.mark.parametrize(("language", "itn"), [("", True), ("en", False)])
def test_a_sensevoice_says_what_sherpa_onnx_says(tmp_path: Path, language: str, itn: bool) -> None:
    peer = pytest.importorskip("sherpa_onnx")
    path = write_sensevoice(tmp_path, sherpa=True)
    make: Callable[..., Any] = peer.OfflineRecognizer.from_sense_voice
    recogniser = make(str(path), str(tmp_path / "tokens.txt"), language=language, use_itn=itn)
    session = opened(path)
    labels = Transcribe(stage_of(language=language, itn=itn), session.spec).plan(SOUND)
    for seconds, seed in SOUNDS:
        samples = sound(seconds, seed)
        expected = heard(recogniser, samples)
        [made] = said(session, sound_part([samples]), language=language, itn=itn)
        assert texts(made)[0].strip() == expected.text.strip()
        tags = {name: labels[name].labels[int(made.arrays[name][0])] for name in ("language", "emotion", "event")}
        assert tags["language"] == (language or LANGUAGES[0])
        assert [f"<|{tag}|>" for tag in tags.values()] == [expected.lang, expected.emotion, expected.event]
        starts = set(np.round(expected.timestamps, 3))
        assert set(made.arrays["words"].row(0)[:, 0].round(3)) <= starts
