"""What only a card can show: its decoder, its kernels, its runtime, and what becomes of a worker that loses it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu_parts import decoded, samples
from engines.cuda.card import CudaCard, find_card
from engines.cuda.transforms import CudaPreprocess
from engines.devices import cards
from engines.inference.cuda import CudaSession
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.models.catalogue import builtin_model
from engines.transforms import Preprocess
from pipelines.registry import builtin_pipeline
from schemas.errors import ExitCode
from schemas.pipeline import PreprocessStage
from tests.clips import Clip, generated, real_clip
from tests.fleet import Fleet
from workers.process import ALL_STAGES

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]
CLIPS = ("bigbuckbunny", "bikes", "carphone_pristine")


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CudaCard]:
    opened = CudaCard("cuda:0", tmp_path_factory.mktemp("kernels"))
    yield opened
    opened.close()


def test_cards_are_found_by_their_uuid() -> None:
    found = cards()
    assert found
    number, card = find_card(f"cuda:{found[-1].uuid}")
    assert (number, card) == (len(found) - 1, found[-1])


@pytest.mark.parametrize("name", CLIPS)
def test_planes_of_its_decoder_are_those_of_the_host(card: CudaCard, name: str) -> None:
    for host, mine in decoded(card, real_clip(name)):
        assert mine.sw_format is not None
        there = mine.reformat(format=mine.sw_format.name)
        for one, other in zip(samples(host), samples(there), strict=True):
            assert (one == other).all()


@pytest.mark.parametrize(
    "given",
    [
        {"size": (182, 182)},
        {"size": (32, 32), "layout": "gray"},
        {"layout": "planes"},
        {"size": (91, 161), "fit": "pad"},
        {"size": (182, 182), "resize": "bilinear"},
    ],
)
def test_its_transforms_are_those_of_the_host(card: CudaCard, given: dict[str, object]) -> None:
    stage = PreprocessStage.model_validate({"kind": "preprocess", **given})
    for host, mine in decoded(card, real_clip("bigbuckbunny"), 5):
        convert = CudaPreprocess(stage, card)
        made = convert.convert(mine)
        convert.settle()
        for name, wanted in Preprocess(stage).convert(host).items():
            assert np.abs(wanted.astype(np.int32) - np.asarray(made[name])).max() <= 2


def test_a_session_answers_like_the_hosts(card: CudaCard) -> None:
    spec, model = builtin_model("fingerprint")
    session, host = CudaSession(model, spec, card), OnnxRuntimeSession(model, spec)
    generator = np.random.default_rng(0)
    for rows in (1, 7, 7, 64):
        pixels = generator.integers(0, 256, (rows, 5, 32, 32), np.uint8)
        given = session.run({"pixels": pixels})["descriptor"]
        assert np.abs(given - host.run({"pixels": pixels})["descriptor"]).max() < 1e-4
    session.close()


def test_nothing_is_allocated_for_the_batches_that_follow(card: CudaCard) -> None:
    spec, model = builtin_model("fingerprint")
    session = CudaSession(model, spec, card)
    pixels = np.zeros((16, 5, 32, 32), np.uint8)
    for _ in range(4):
        session.run({"pixels": pixels})
    before = card.counters.allocations
    for _ in range(50):
        session.run({"pixels": pixels})
    assert card.counters.allocations == before
    session.close()


def test_a_fleet_on_it_answers_like_one_on_the_host(tmp_path: Path) -> None:
    spec = builtin_pipeline("fingerprint")
    made = {}
    for device in ("cpu", "cuda:0"):
        with Fleet((ALL_STAGES,), tmp_path / "cache", devices=[device]) as fleet:
            outcomes = fleet.run(spec, [real_clip(name) for name in CLIPS], tmp_path / device.replace(":", ""))
            assert all(outcome.ok for outcome in outcomes), [outcome.error for outcome in outcomes]
            made[device] = [np.load(f"{outcome.target}.npz") for outcome in outcomes]
    for host, mine in zip(made["cpu"], made["cuda:0"], strict=True):
        assert (host["times"] == mine["times"]).all()
        assert (host["descriptor"] * mine["descriptor"]).sum(1).min() > 0.999


@pytest.mark.parametrize("clip", [Clip(codec="mpeg4", container="avi"), Clip(pixel_format="yuv444p")])
def test_what_its_decoder_refuses_the_host_decodes(tmp_path: Path, clip: Clip) -> None:
    spec = builtin_pipeline("fingerprint")
    with Fleet((ALL_STAGES,), tmp_path / "cache", devices=["cuda:0"]) as fleet:
        (outcome,) = fleet.run(spec, [generated(clip)], tmp_path / "out")
    assert outcome.ok, outcome.error


def test_a_worker_that_is_told_to_stop_ends_well(tmp_path: Path) -> None:
    with Fleet((ALL_STAGES,), tmp_path / "cache", devices=["cuda:0"]) as fleet:
        (outcome,) = fleet.run(builtin_pipeline("fingerprint"), [real_clip("bikes")], tmp_path / "out")
        fleet.workers[0].send_signal(signal.SIGTERM)
        assert fleet.workers[0].wait() == ExitCode.OK
    assert outcome.ok, outcome.error


TRAP = """
import sys; from pathlib import Path
from engines.cuda.card import CudaCard, find_card
from engines.inference.cuda import CudaSession
from engines.models.catalogue import builtin_model
from schemas.errors import DeviceLost
import numpy as np
card = CudaCard("cuda:0", Path(sys.argv[1]))
spec, model = builtin_model("fingerprint")
session = CudaSession(model, spec, card)
pixels = np.zeros((4, 5, 32, 32), np.uint8)
session.run({"pixels": pixels}); session.run({"pixels": pixels})
from engines.cuda.kernels import GATHER
given = np.zeros((), GATHER); given["rows"] = 8; given["out"] = 8; given["row_bytes"] = 64
card.kernels.launch("gather", (1, 1), (32, 1, 1), session._runs, given[()])  # reads where nothing is
try:
    for _ in range(3): session.run({"pixels": pixels})
except DeviceLost as error:
    import os; print(error); sys.stdout.flush(); os._exit(error.exit_code)
"""


def test_an_error_of_the_card_is_told_as_a_lost_device(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", TRAP, str(tmp_path)], capture_output=True, text=True, env=os.environ)
    assert done.returncode == ExitCode.DEVICE_LOST, done.stderr[-2000:]
    assert "device cuda:0 failed" in done.stdout
