"""Which deaths of a worker count against its device."""

from workers.process import WorkerOptions
from workers.supervisor import DEATHS, Slot
from workers.telemetry import Heartbeat, StageCounts


def slot_after(deaths: list[tuple[float, int, bool]]) -> Slot:
    """A slot whose processes died at those seconds, each after so many parts, at a suspect or not."""
    slot = Slot(WorkerOptions.model_validate({"settings": {}}))
    for at_s, parts, suspect in deaths:
        slot.heartbeat = Heartbeat("working", True, suspect=suspect, stages={("p", "infer"): StageCounts(parts=parts)})
        slot.retire()
        slot.count_crash(at_s)
    return slot


def test_inputs_that_kill_are_no_fault_of_a_device_that_does_other_work() -> None:
    two = [(0.0, 20, False), (0.3, 5, False), *((10.0 * n, 0, True) for n in range(1, 8))]
    assert len(slot_after(two).deaths) <= 2


def test_a_device_that_finishes_nothing_is_given_up_whatever_it_is_given() -> None:
    broken = [(10.0 * n, 0, n % 4 > 0) for n in range(DEATHS)]
    assert len(slot_after(broken).deaths) == DEATHS


def test_a_device_that_breaks_after_long_work_is_given_up_when_that_is_a_minute_ago() -> None:
    broken = [(0.0, 1000, False), *((10.0 * n, 0, n % 4 > 0) for n in range(1, 12))]
    assert len(slot_after(broken).deaths) >= DEATHS


def test_deaths_that_are_long_ago_do_not_count() -> None:
    assert len(slot_after([(40.0 * n, 0, False) for n in range(2 * DEATHS)]).deaths) < DEATHS
