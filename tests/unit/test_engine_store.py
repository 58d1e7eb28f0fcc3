"""Engines kept on this machine: found, held against their sidecars, built again when they are damaged."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engines.building.engine import Recipe, obtain, profiles_of
from engines.building.store import EngineStore
from engines.inference.bindings import installed
from schemas.errors import ModelError, UsageError
from tests.nets import kept_engine as kept
from tests.nets import resnet, upscaler


@pytest.mark.parametrize("model", ["../../secret@1", "/etc/m.onnx", "m@1\x1b[2J", "m@1@2", ""])
def test_a_sidecar_names_no_file_and_moves_no_cursor(tmp_path: Path, model: str) -> None:
    """It may come from the fleet; `engine check` looks its model up, and all commands show it."""
    store, spec = kept(tmp_path)
    (tmp_path / f"{spec.key}.json").write_text(json.dumps({**spec.model_dump(mode="json"), "model": model}))
    assert [damage.key for damage in store.listed()[1]] == [spec.key]


def test_the_key_is_of_everything_that_an_engine_depends_on(tmp_path: Path) -> None:
    keys = {kept(tmp_path)[1].key}
    for change in (
        {"model_sha256": "0" * 64}, {"graph_sha256": "0" * 64}, {"backend": "tensorrt"}, {"version": "1.8"},
        {"targets": ("sm86", "sm89")}, {"device": "P106-100"}, {"precision": "fp32"}, {"recipe": 2},
        {"profiles": profiles_of(resnet()[0], {"N": (1, 4, 16)})},
    ):  # fmt: skip
        keys.add(kept(tmp_path, **change)[1].key)
    assert len(keys) == 10


def test_a_damaged_engine_is_never_given_out(tmp_path: Path) -> None:
    store, spec = kept(tmp_path)
    plan, sidecar = tmp_path / f"{spec.key}.plan", tmp_path / f"{spec.key}.json"
    whole = plan.read_bytes()
    for damage in (whole[:-1], bytes([1]) + whole[1:], b""):
        plan.write_bytes(damage)
        with pytest.raises(ModelError, match="its plan is not the one that was built"):
            store.load(spec.key)
    plan.unlink()
    assert not store.is_intact(spec.key)
    plan.write_bytes(whole)
    sidecar.write_text(sidecar.read_text().replace('"1.7.1"', '"1.7.2"'))
    with pytest.raises(ModelError, match="its sidecar was changed"):
        store.load(spec.key)
    sidecar.write_text("{")
    assert [each.key for each in store.listed()[1]] == [spec.key]
    assert store.suitable(spec.basis.model_sha256, "tensorrt_rtx", "1.7.1", "sm86", "fp16") == []


def test_what_another_version_built_is_stale(tmp_path: Path) -> None:
    store, spec = kept(tmp_path)
    sha256 = spec.basis.model_sha256
    assert store.suitable(sha256, "tensorrt_rtx", "1.7.1", "sm86", "fp16") == [spec]
    assert store.suitable(sha256, "tensorrt_rtx", "1.8.0", "sm86", "fp16") == []
    assert store.suitable(sha256, "tensorrt_rtx", "1.7.1", "sm89", "fp16") == []
    assert store.suitable(sha256, "tensorrt_rtx", "1.7.1", "sm86", "fp32") == []


@pytest.mark.skipif(not installed("tensorrt_rtx"), reason="tensorrt-rtx is not installed")
def test_a_damaged_engine_is_built_again_and_a_whole_one_is_not(tmp_path: Path) -> None:
    store, made = EngineStore(tmp_path), Recipe.make(*upscaler(), "fp16", {"H": (64, 64, 64), "W": (64, 64, 64)})
    basis = made.basis("tensorrt_rtx", ("sm86",))
    spec, new = obtain(store, made, basis)
    assert new
    assert obtain(store, made, basis) == (spec, False)
    (tmp_path / f"{spec.key}.plan").write_bytes(b"vtrt")
    again, new = obtain(store, made, basis)
    assert new
    assert store.load(again.key)[0] == again
    assert store.graph(again) == made.graph


def test_engines_are_found_by_the_beginning_of_their_key(tmp_path: Path) -> None:
    store, spec = kept(tmp_path)
    assert store.find(spec.key[:5]) == spec
    for wrong in ("", "zzz"):
        with pytest.raises(UsageError, match="see `rigflow engine list`"):
            store.find(wrong)


def test_one_of_many_builds_and_the_others_take_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe.make(*resnet(), "fp16", {})
    _, spec = kept(tmp_path / "made")
    monkeypatch.setattr(Recipe, "build", lambda self, basis: (spec, b"vtrt" + bytes(100)))
    store = EngineStore(tmp_path / "shared")
    with ThreadPoolExecutor(4) as workers:
        outcomes = [outcome.result() for outcome in [workers.submit(obtain, store, recipe, spec.basis) for _ in "1234"]]
    assert [each for each, _ in outcomes] == [spec] * 4
    assert sum(new for _, new in outcomes) == 1
