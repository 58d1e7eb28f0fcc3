"""All models that come with rigflow: answers do not depend on the batch, and builds are repeatable."""

import hashlib

import numpy as np
import pytest

from engines.models import fingerprint, lanczos2x, shotchange
from engines.models.catalogue import builtin_model, builtin_models
from engines.part import Array
from schemas.errors import ModelError
from tests.clips import real_clip
from tests.unit.builtin import frames, pairs, run


def sample(model: str) -> Array:
    """A batch of sixteen rows of real pictures."""
    if model == "fingerprint":
        images, _ = frames(real_clip("bikes"), (32, 32), "gray")
        return images[:80].reshape(16, 5, 32, 32)
    if model == "shotchange":
        return pairs("bikes")[20:36]
    return frames(real_clip("bikes"), (90, 160), "gray")[0][:16, :85, :151]


@pytest.mark.parametrize("model", builtin_models())
def test_answers_do_not_depend_on_the_batch_bit_for_bit(model: str) -> None:
    batch = sample(model)
    together = run(model)(batch)
    for size in (1, 2, 3, 5, 7):
        apart = [run(model)(batch[first : first + size]) for first in range(0, len(batch), size)]
        np.testing.assert_array_equal(np.concatenate(apart), together)


def test_single_pictures_do_not_depend_on_the_batch_either() -> None:
    batch = sample("fingerprint").reshape(80, 1, 32, 32)
    together = run("fingerprint")(batch)
    np.testing.assert_array_equal(np.concatenate([run("fingerprint")(batch[i : i + 1]) for i in range(80)]), together)


@pytest.mark.parametrize("module", [fingerprint, lanczos2x, shotchange])
def test_building_twice_gives_equal_bytes_and_their_hash(module: object) -> None:
    spec, body = module.build()  # type: ignore[attr-defined]
    assert (spec, body) == module.build()  # type: ignore[attr-defined]
    assert spec.sha256 == hashlib.sha256(body).hexdigest()
    assert builtin_model(spec.name) == (spec, body)
    assert builtin_model(f"{spec.name}@{spec.version}") == (spec, body)


@pytest.mark.parametrize("name", ["nonsense", "fingerprint@99", ""])
def test_unknown_model(name: str) -> None:
    with pytest.raises(ModelError, match=f"no model `{name}`: rigflow has fingerprint, lanczos2x, shotchange"):
        builtin_model(name)
