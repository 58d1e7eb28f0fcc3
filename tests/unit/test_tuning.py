"""Trying options: the fastest that may be used is chosen, and what changes answers is not."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engines.part import Array
from engines.profiling import batches, tuning
from engines.profiling.batches import batch_seconds, shapes_of
from engines.profiling.tuning import Allowed, Tuner
from engines.tunable import Tunable
from schemas.errors import DeviceLost, ModelError, UsageError
from schemas.model import ModelSpec, TensorSpec
from schemas.model_profile import ComputeOptions
from schemas.settings import Settings

CARD = ModelSpec(
    name="net",
    inputs=(TensorSpec(name="x", dtype="float32", shape=("N", 4)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=("N", 4)),),
    sha256="0" * 64,
)
NOTHING = Allowed(tf32=False, fp16=False)
HOST, GPU = SimpleNamespace(gpu=None), SimpleNamespace(gpu=object())


class Clock:
    """A clock that goes on while a session computes, and only then."""

    now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    perf_counter = monotonic


CLOCK = Clock()


def use_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the tuner look at `CLOCK`."""
    for module in (batches, tuning):
        monkeypatch.setattr(module, "time", CLOCK)


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    use_clock(monkeypatch)


class Answering:
    """A session that takes `row_s` for a row, and whose answers are `error` away from those of others."""

    spec = CARD

    def __init__(self, row_s: float, error: float, rows: int) -> None:
        self._row_s, self._error = row_s, error
        self.batch_bytes = rows * 16
        self.closed = False

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        CLOCK.now_s += self._row_s * len(inputs["x"])
        return {"y": (inputs["x"] * np.float32(1 + self._error)).astype(np.float32)}

    def warm_up(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class Various:
    """A backend whose options have these seconds of a row and errors."""

    name = "various"

    def __init__(self, cases: Mapping[str, tuple[float, float] | Exception], **worth: Sequence[Any]) -> None:
        self._cases, self._worth = cases, worth
        self.opened: list[Answering] = []

    def refuses(self, device: Any) -> str:
        return ""

    def library(self) -> str:
        return "1"

    def usual(self, device: Any) -> ComputeOptions:
        return ComputeOptions()

    def worth_trying(self, model: Any, card: ModelSpec, device: Any) -> Sequence[Sequence[Mapping[str, Any]]]:
        return [[{name: value} for value in values] for name, values in self._worth.items()]

    def open(self, *given: Any) -> Any:
        raise AssertionError("the tuner names the options")

    def open_with(self, model: Any, card: ModelSpec, device: Any, options: ComputeOptions) -> Any:
        case = self._cases[str(options)]
        if isinstance(case, Exception):
            raise case
        self.opened.append(Answering(*case, options.batch or 2))
        return self.opened[-1]


def tuner(backend: Any, device: Any, allowed: Allowed = NOTHING, seconds: float = 60.0, **more: Any) -> Tuner:
    report = more.pop("report", str)
    return Tuner(backend, b"", CARD, device, {"x": (4,)}, allowed, seconds, report, **more)


def test_the_fastest_is_chosen_one_field_after_the_other() -> None:
    backend = Various(
        {
            "defaults": (4e-3, 0),
            "NCHW": (6e-3, 0),
            "NHWC": (2e-3, 1e-6),
            "NHWC, exhaustive search": (1e-3, 0),
        },
        layout=("nchw", "nhwc"),
        search=("exhaustive",),
    )
    assert isinstance(backend, Tunable)
    lines: list[str] = []
    tuned = tuner(backend, GPU, report=lines.append).tune()
    assert tuned.chosen == ComputeOptions(layout="nhwc", search="exhaustive")
    assert [str(each.options) for each in tuned.tried] == list(backend._cases)
    assert [line.partition(":")[0] for line in lines] == list(backend._cases)
    assert tuned.batch_s == {1: pytest.approx(1e-3), 2: pytest.approx(2e-3)}
    assert all(session.closed for session in backend.opened)


@pytest.mark.parametrize(
    ("device", "allowed", "precision", "error", "refused"),
    [
        (GPU, Allowed(False, False), "fp16", 1e-3, "not allowed"),
        (GPU, Allowed(False, True), "fp16", 1e-3, ""),
        (GPU, Allowed(False, True), "fp16", 0.1, "an error of 0.1, 0.01 is allowed"),
        (GPU, Allowed(False, True), "fp16", np.nan, "not numbers"),
        (GPU, Allowed(True, False), "tf32", 1e-3, ""),
        (GPU, Allowed(False, True), "tf32", 1e-3, "not allowed"),
        (HOST, Allowed(True, True), "tf32", 1e-6, "other bits"),
        (HOST, Allowed(True, True), "tf32", 0.0, ""),
    ],
)
def test_rounding_needs_permission_and_passes_the_test(
    device: Any, allowed: Allowed, precision: str, error: float, refused: str
) -> None:
    backend = Various({"defaults": (4e-3, 0), precision: (1e-3, error)}, precision=(precision,))
    tuned = tuner(backend, device, allowed, everything=True).tune()
    assert tuned.tried[1].options.precision == precision
    assert refused in tuned.tried[1].refused
    assert bool(tuned.tried[1].refused) == bool(refused)
    assert tuned.chosen.precision == ("" if refused else precision)


def test_what_own_kernels_do_not_heed_is_not_tried_with_them() -> None:
    cases = {"defaults": (4e-3, 0), "own kernels": (1e-3, 1e-6), "batch 8, own kernels": (5e-4, 0)}
    backend = Various(cases, kernels=(True,), layout=("nchw",), graph=(True,), batch=(8,))
    tuned = tuner(backend, GPU).tune()
    assert [str(each.options) for each in tuned.tried] == list(cases)
    assert (tuned.chosen.kernels, tuned.chosen.batch) == (True, 8)


def test_what_is_not_allowed_is_not_even_tried_by_a_worker() -> None:
    backend = Various({"defaults": (1e-3, 0)}, precision=("tf32", "fp16"))
    assert [str(each.options) for each in tuner(backend, GPU).tune().tried] == ["defaults"]


def test_a_larger_batch_must_gain_more_because_a_row_waits_longer_in_it() -> None:
    cases = {"defaults": (2e-3, 0), "batch 4": (1.9e-3, 0), "batch 8": (1e-3, 0)}
    assert tuner(Various(cases, batch=(4,)), GPU).tune().chosen.batch == 0
    assert tuner(Various(cases, batch=(4, 8)), GPU).tune().chosen.batch == 8


@pytest.mark.parametrize(("row_s", "chosen"), [(2.01e-3, True), (2.03e-3, False)])
def test_a_graph_is_used_where_it_is_not_slower(row_s: float, chosen: bool) -> None:
    cases = {"defaults": (2e-3, 0), "CUDA graph": (row_s, 0)}
    cases |= {"batch 8, CUDA graph": (1e-3, 0), "batch 8": (1.5e-3, 0)}
    tuned = tuner(Various(cases, graph=(True,), batch=(8,)), GPU).tune()
    assert (tuned.chosen.graph, tuned.chosen.batch) == (chosen, 8)


def test_options_that_fail_are_refused_and_a_lost_device_ends_it() -> None:
    backend = Various({"defaults": (1e-3, 0), "NHWC": ModelError("no such kernel")}, layout=("nhwc",))
    tuned = tuner(backend, GPU).tune()
    assert tuned.chosen == ComputeOptions()
    assert tuned.tried[1].refused == "it fails: no such kernel"
    with pytest.raises(DeviceLost):
        tuner(Various({"defaults": (1e-3, 0), "NHWC": DeviceLost("gone")}, layout=("nhwc",)), GPU).tune()
    with pytest.raises(ModelError):
        tuner(Various({"defaults": ModelError("no")}), GPU).tune()


def test_it_ends_when_its_time_is_over() -> None:
    cases = {"defaults": (0.5, 0), "NCHW": (0.4, 0), "NHWC": (0.01, 0)}
    backend = Various(cases, layout=("nchw", "nhwc"))
    began_s = CLOCK.now_s
    tuned = tuner(backend, GPU, seconds=0.1).tune()
    assert [str(each.options) for each in tuned.tried] == ["defaults", "NCHW"]
    assert tuned.chosen == ComputeOptions(layout="nchw")
    assert CLOCK.now_s - began_s < 10


def test_a_slow_batch_is_run_once() -> None:
    session = Answering(0.02, 0, 4)
    rows = {"x": np.zeros((4, 4), np.float32)}
    began_s = CLOCK.now_s
    assert batch_seconds(session, rows, CLOCK.now_s) == pytest.approx(0.08) == CLOCK.now_s - began_s


def test_free_sizes_are_those_that_are_given() -> None:
    free = CARD.model_copy(update={"inputs": (TensorSpec(name="x", dtype="float32", shape=("N", 3, "h", "w")),)})
    assert shapes_of(free, {"h": 5, "w": 6}) == {"x": (3, 5, 6)}
    with pytest.raises(UsageError, match="dimension w of input `x` is free"):
        shapes_of(free, {"h": 5})


def test_permission_comes_from_settings_and_card() -> None:
    assert str(Allowed.by(Settings(), CARD)) == ""
    assert str(Allowed.by(Settings(tf32=True, precision="fp16"), CARD)) == "tf32, fp16"
    assert str(Allowed.by(Settings(), CARD.model_copy(update={"precision": "float16"}))) == "fp16"
