"""What models cost while a worker works: a running median, and when it is worth storing."""

import pytest

from engines.models.catalogue import builtin_model
from schemas.model import ModelSpec
from schemas.model_profile import MOST_BATCHES, ModelProfile
from tests.unit.test_model_profile import profile
from workers.costs import DRIFT_S, Costs, ModelCosts


def after(predicted: ModelProfile | None, *runs: tuple[int, float]) -> Costs:
    costs = Costs()
    if predicted is not None:
        costs.put(predicted)
    for rows, seconds in runs:
        costs.ran(rows, seconds)
    return costs


def test_a_model_without_figures_is_stored_after_some_runs() -> None:
    assert not after(None, *[(4, 0.1)] * 7).differs(0.0)
    assert after(None, *[(4, 0.1)] * 8).differs(0.0)


def test_one_slow_run_changes_nothing() -> None:
    costs = after(profile({4: 0.1}), *[(4, 0.1)] * 20, (4, 9.0), (4, 9.0))
    assert costs.batch_s == {4: 0.1}
    assert not costs.differs(0.0)
    assert not costs.differs(1e6)


@pytest.mark.parametrize(("seconds", "stored"), [(0.1, False), (0.119, False), (0.125, True), (0.07, True)])
def test_a_fifth_for_a_minute_is_drift(seconds: float, stored: bool) -> None:
    costs = after(profile({4: 0.1, 8: 0.18}), *[(4, seconds)] * 10)
    assert not costs.differs(100.0)
    assert not costs.differs(100.0 + DRIFT_S - 1)
    assert costs.differs(100.0 + DRIFT_S) == stored
    assert costs.merged() == {4: seconds, 8: 0.18}


def test_drift_that_ends_within_the_minute_is_none() -> None:
    costs = after(profile({4: 0.1}), *[(4, 0.2)] * 10)
    assert not costs.differs(0.0)
    for _ in range(32):
        costs.ran(4, 0.1)
    assert not costs.differs(50.0)
    for _ in range(32):
        costs.ran(4, 0.2)
    assert not costs.differs(61.0)
    assert costs.differs(61.0 + DRIFT_S)


def test_what_is_kept_is_bounded() -> None:
    costs = after(profile({4000 + rows: 0.1 for rows in range(MOST_BATCHES)}))
    for rows in range(1, 1000):
        for _ in range(8):
            costs.ran(rows, 0.1)
    assert len(costs.batch_s) == MOST_BATCHES
    assert len(profile(costs.merged()).batch_s) == MOST_BATCHES


def test_of_a_gpu_only_full_batches_tell_their_rows() -> None:
    card, _ = builtin_model("shotchange")
    times = [(16, 16, 0.2)] * 8 + [(3, 16, 0.2)] * 8
    found = {}
    for full_only in (False, True):
        costs = ModelCosts()
        costs.full_only = full_only
        costs.ran(card, times)
        costs.ran(None, times)
        found[full_only] = costs._costs[card.identity].batch_s
    assert found == {False: {16: 0.2, 3: 0.2}, True: {16: 0.2}}
    assert costs.facts() == [{"model": card.name, "rows": 16, "batch_s": 0.2, "predicted_s": 0.0}]


def test_the_card_of_a_model_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    card, hashed = builtin_model("fingerprint")[0], []
    identity = card.identity
    monkeypatch.setattr(ModelSpec, "identity", property(lambda card: hashed.append(card) or identity))
    costs = ModelCosts()
    for _ in range(20):
        costs.ran(card, [(4, 4, 0.1)])
    assert len(hashed) == 1
    assert [(each["rows"], each["batch_s"]) for each in costs.facts()] == [(4, 0.1)]
