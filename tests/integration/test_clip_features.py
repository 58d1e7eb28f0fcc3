"""clip-features through a real broker: a small network of X3D's kind, from the user's folder of models."""

from pathlib import Path

import numpy as np
import pytest

from engines.media.pieces import windows_per_part
from engines.models.catalogue import load_model, save_model
from engines.models.publishers import where_to_get
from engines.models.x3d import SIDE
from pipelines.registry import builtin_pipeline
from schemas.errors import ModelError
from schemas.media import MediaInfo
from tests.cli import rigflow_process
from tests.clips import Clip, make_clip, real_clip
from tests.fleet import ONE_WORKER, Fleet
from tests.nets import small_x3d
from tests.own_pass import answers_of
from tests.plans import decode_plan
from workers.engines import find_model

SPEC = builtin_pipeline("clip-features")
MODELS = Path(".local/share/rigflow/models")  # in a user's home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("workers", [1, 3])
def test_features_equal_one_sequential_pass(workers: int, home: Path, tmp_path: Path) -> None:
    model = small_x3d()
    save_model(home / MODELS, *model)
    odd = make_clip(tmp_path, Clip(frames=80, size=(130, 98), rotation=90, vfr=True))
    clips = [real_clip("carphone_pristine"), odd]
    expected = [answers_of(clip, SPEC, model) for clip in clips]
    assert [len(times) for times, _ in expected] == [4, 5]
    digests = set()
    with Fleet(ONE_WORKER * workers, tmp_path / "cache") as fleet:
        for segment_s in (0.5, 1000.0):
            spec = SPEC.model_copy(update={"segment_s": segment_s})
            outcomes = fleet.run(spec, clips, tmp_path / f"out{segment_s}")
            for outcome, (times, features) in zip(outcomes, expected, strict=True):
                assert outcome.ok, outcome.error
                with np.load(f"{outcome.target}.npz") as found:
                    np.testing.assert_array_equal(found["times"], times)
                    np.testing.assert_array_equal(found["features"], features)
            digests.add(tuple(outcome.done.digest for outcome in outcomes if outcome.done))
    assert len(np.unique(np.concatenate([features for _, features in expected]).round(4), axis=0)) == 9


def test_without_its_model_it_says_how_to_make_it(home: Path, tmp_path: Path) -> None:
    ended = rigflow_process("run", "clip-features", real_clip("bikes"), "--out", tmp_path, HOME=str(home))
    assert ended.returncode == 2
    assert ended.stderr == f"rigflow: model x3d_s is missing: {where_to_get('x3d_s')}; --model NAME runs another\n"
    assert "then `rigflow engine export x3d_s --weights X3D_S.pyth`" in ended.stderr


def test_a_saved_model_is_loaded_as_it_was(tmp_path: Path) -> None:
    card, body = small_x3d()
    path = save_model(tmp_path / "made" / "on demand", card, body)
    assert load_model(path, path.with_suffix(".toml")) == (card, body)
    assert sorted(file.name for file in path.parent.iterdir()) == ["x3d_s.onnx", "x3d_s.toml"]


def test_engines_are_built_of_it_by_its_name(home: Path) -> None:
    with pytest.raises(ModelError, match="model x3d_s is missing"):
        find_model("x3d_s")
    save_model(home / MODELS, *small_x3d())
    assert find_model("x3d_s") == small_x3d()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("resnet",), "no network is called resnet: there is x3d_s"),
        (("x3d_s",), "exporting needs torch and pytorchvideo (import of torch halted; None in sys.modules)"),
    ],
)
def test_what_cannot_be_exported_is_a_line(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    path = f"{tmp_path}:{Path(__file__).parents[2]}"
    ended = rigflow_process("engine", "export", *arguments, PYTHONPATH=path, HOME=str(tmp_path))
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"rigflow: {words}")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / ".local").exists()


@pytest.mark.parametrize("size", [(144, 176), (720, 1280), (2160, 3840)])
def test_parts_hold_at_most_64_mib_of_frames(size: tuple[int, int]) -> None:
    media = MediaInfo(kind="video", height=size[0], width=size[1])
    frames = windows_per_part(decode_plan(SPEC), media) * 6
    assert frames * SIDE * SIDE * 3 <= 64 << 20
    assert frames * size[0] * size[1] * 3 // 2 <= 72 << 20  # one window at least
