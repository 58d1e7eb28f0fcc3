"""A file of another kind than a pipeline takes is refused in one way, whichever pipeline, kind and way of giving it."""

import io
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from cli.samples import draw_samples
from pipelines.registry import builtin_pipeline, builtin_pipelines
from schemas.errors import ExitCode
from tests.cli import rigflow
from tests.clips import Clip, generated
from tests.fleet import ONE_WORKER, Fleet

HOLDS = {  # the kinds that each sample is
    "film.mp4": {"video", "audio"},
    "picture.jpg": {"image"},
    "sound.wav": {"audio"},
    "text.txt": {"text"},
}
COMPLETE = ("fingerprint", "scenes", "upscale2x")  # with the models that they run
WRONG = [
    (name, sample)
    for name in builtin_pipelines()
    for sample, kinds in HOLDS.items()
    if not kinds & {*builtin_pipeline(name).media}
]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(ONE_WORKER, tmp_path_factory.mktemp("cache")) as started:
        yield started


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draw_samples(folder := tmp_path_factory.mktemp("samples"))
    return folder


@pytest.mark.parametrize(("pipeline", "sample"), WRONG)
def test_a_file_or_a_folder_of_another_kind_is_refused_with_what_the_pipeline_takes(
    fleet: Fleet, samples: Path, tmp_path: Path, pipeline: str, sample: str
) -> None:
    takes = " and ".join(builtin_pipeline(pipeline).media)
    where = ("--nats", fleet.settings.nats, "--out", tmp_path / "out")
    refused = rigflow("run", pipeline, samples / sample, *where, HOME=str(tmp_path))
    assert f"{samples / sample}: pipeline {pipeline} takes {takes}, this is " in refused.stderr
    assert refused.returncode == ExitCode.USAGE
    if pipeline not in COMPLETE:
        return  # its model is missing, which is said before a folder is looked at
    (folder := tmp_path / "in").mkdir()
    shutil.copy(samples / sample, folder)
    refused = rigflow("run", pipeline, folder, *where, HOME=str(tmp_path))
    assert f"pipeline {pipeline} takes files of {takes}" in refused.stderr
    assert refused.returncode == ExitCode.USAGE


@pytest.mark.parametrize("sample", ["picture.jpg", "sound.wav", "text.txt"])
def test_standard_input_of_another_kind(
    fleet: Fleet, samples: Path, tmp_path: Path, sample: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO((samples / sample).read_bytes())))
    refused = rigflow("run", "scenes", "-", "--nats", fleet.settings.nats, "--out", tmp_path / "out")
    assert "standard input: pipeline scenes takes video, this is " in refused.stderr
    assert refused.returncode == ExitCode.USAGE


def test_a_film_without_sound_is_distinguished_from_one_that_has_some(samples: Path, tmp_path: Path) -> None:
    refused = rigflow("run", "transcribe", film := generated(Clip()), HOME=str(tmp_path))
    assert f"{film}: pipeline transcribe takes audio, this is video without sound" in refused.stderr
    assert refused.returncode == ExitCode.USAGE
