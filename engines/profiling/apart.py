"""Measures in a process of its own: ONNX Runtime's sessions on a GPU keep memory until their process ends."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from engines.backends.choice import backend_of
from engines.content import Content
from engines.device import open_device
from engines.own_process import in_own_process, say
from engines.part import Array
from engines.profiling.tuning import Allowed, Report, Tuned, Tuner
from engines.tunable import Tunable
from schemas.device_profile import DeviceProfile
from schemas.errors import DeviceLost, ModelError
from schemas.model import ModelSpec
from schemas.settings import Settings

_MOST_TIMES, _OPENING_S = 8, 120.0  # of the seconds to try for, and for opening a large model: then it hangs
_WORKERS_OF_GPU = 4  # they measure one after the other if that fails, and a supervisor waits for work_deadline_s
_HINT = "set tuning_s = 0, which computes it as it was computed before"
_HINT_OF_DEVICE = "see `rigflow profile`, or set tuning_s = 0, which measures nothing"


class Task(NamedTuple):
    """What is to be tried: a model on a device, for some seconds; see `Tuner`."""

    model: Content
    card: ModelSpec
    device: str
    settings: Settings
    shapes: Mapping[str, tuple[int, ...]]
    seconds: float
    rows: Mapping[str, Array] | None = None
    everything: bool = False


def tune_apart(task: Task, report: Report) -> Tuned:
    """Try options of a model in a new process. Raises ModelError when it fails there, or with its GPU."""
    within_s = _MOST_TIMES * task.seconds + _OPENING_S
    return in_own_process(task.card.name, "tries options of", _HINT, _tune, task, report=report, within_s=within_s)


def _tune(task: Task) -> Tuned:
    card, settings = task.card, task.settings
    backend = backend_of(card, settings)
    assert isinstance(backend, Tunable), "the caller asks for no other"
    try:
        device = open_device(task.device, settings, settings.cache_folder)
        allowed = Allowed.by(settings, card)
        given = (backend, task.model, card, device, task.shapes, allowed, task.seconds, say)
        return Tuner(*given, task.rows, task.everything).tune()
    except DeviceLost as error:  # of this process; the caller has its own hold on the device
        raise ModelError(error.what, error.hint) from error


def measure_apart(device: str, settings: Settings, seconds: float, report: Report) -> DeviceProfile:
    """Measure a GPU in about `seconds`, without its clocks under load, in a new process.

    Raises UsageError, and ModelError when it fails there or takes far longer.
    """
    within_s = min(2 * seconds + _OPENING_S, settings.work_deadline_s / _WORKERS_OF_GPU)
    given = (device, "measures", _HINT_OF_DEVICE, _measure, device, settings.cache_folder, seconds)
    return in_own_process(*given, report=report, within_s=within_s, kind="device")


def _measure(device: str, cache: Path, seconds: float) -> DeviceProfile:
    from engines.profiling.gpu import measure_gpu  # the packages of GPUs

    try:
        return measure_gpu(device, cache, seconds, 0.0, say)
    except DeviceLost as error:  # of this process; the caller has its own hold on the device
        raise ModelError(error.what, error.hint) from error
