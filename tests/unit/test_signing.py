"""Signatures of pipelines: whose they are, and what they cover."""

import base64
import os
from pathlib import Path

import nkeys
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.registry import builtin_pipeline
from pipelines.signing import check_signed, signed
from schemas.errors import PipelineError, UsageError
from schemas.pipeline import PipelineSpec
from schemas.settings import Settings, load_settings

SPEC = builtin_pipeline("scenes").model_copy(update={"models": {"shotchange": "0" * 64}})


def a_key(folder: Path, name: str = "key", form: str = "{}\n") -> tuple[str, Settings]:
    """A public key, and the settings of a process that has its seed."""
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    (folder / name).write_text(form.format(seed.decode()))
    public = nkeys.from_seed(bytearray(seed)).public_key.decode()
    return public, Settings(credentials=str(folder / name))


@pytest.mark.parametrize("form", ["{}", "JWT\n-----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n"])
def test_a_pipeline_is_trusted_by_the_key_of_who_published_it(tmp_path: Path, form: str) -> None:
    public, given_to = a_key(tmp_path, form=form)
    other, _ = a_key(tmp_path, "other")
    made = signed(SPEC, given_to)
    assert made.revision == SPEC.revision, "who publishes it does not change the answers"
    check_signed(made, {other, public})
    check_signed(SPEC, ())
    with pytest.raises(PipelineError, match=rf"scenes, revision {SPEC.revision}, was signed by {public}"):
        check_signed(made, {other})
    with pytest.raises(PipelineError, match="is not signed"):
        check_signed(SPEC, {public})


def test_each_signature_counts_and_none_stands_twice(tmp_path: Path) -> None:
    (one, first), (two, second) = a_key(tmp_path, "1"), a_key(tmp_path, "2")
    made = signed(signed(signed(SPEC, first), second), first)
    assert len(made.signatures) == 2
    for public in (one, two):
        check_signed(made, {public})
    assert PipelineSpec.model_validate_json(made.model_dump_json()) == made
    assert "signatures" not in SPEC.model_dump_json(), "workers of a version without signatures can read it"


def test_a_process_without_an_nkey_signs_nothing(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("correct horse battery staple")
    for credentials in ("", str(tmp_path / "password"), str(tmp_path / "gone")):
        assert signed(SPEC, Settings(credentials=credentials)) is SPEC


@pytest.mark.parametrize(
    "change",
    [
        {"models": {"shotchange": "1" * 64}},
        {"segment_s": 5.0},
        {"plugins": {"rigflow.heads/x": "x 1"}},
        {"stage": builtin_pipeline("fingerprint").stage},
    ],
)
def test_a_signature_covers_models_stages_and_plugins(tmp_path: Path, change: dict[str, object]) -> None:
    public, given_to = a_key(tmp_path)
    changed = signed(SPEC, given_to).model_copy(update=change)
    with pytest.raises(PipelineError, match="was signed by"):
        check_signed(changed, {public})


def test_what_a_login_signs_is_no_signature_of_a_pipeline(tmp_path: Path) -> None:
    public, given_to = a_key(tmp_path)
    pair = nkeys.from_seed(bytearray(Path(given_to.credentials).read_bytes().strip()))
    for nonce in (f"rigflow pipeline {SPEC.digest}", SPEC.digest):
        signature = f"{public}:{base64.b64encode(pair.sign(nonce.encode())).decode()}"
        with pytest.raises(PipelineError):
            check_signed(SPEC.model_copy(update={"signatures": (signature,)}), {public})


@pytest.fixture(scope="module")
def by_a_key(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A public key, and its signature of SPEC."""
    public, given_to = a_key(tmp_path_factory.mktemp("key"))
    (signature,) = signed(SPEC, given_to).signatures
    return public, signature


@given(text=st.text(max_size=200), place=st.integers(0, 140))
@settings(max_examples=50)
def test_a_forged_signature_is_none(by_a_key: tuple[str, str], text: str, place: int) -> None:
    public, true = by_a_key
    for forged in {f"{public}:{text}", true[:place] + text + true[place + 1 :]} - {true}:
        with pytest.raises(PipelineError):
            check_signed(SPEC.model_copy(update={"signatures": (forged,)}), {public, text})


def test_the_setting_takes_public_keys_of_users_alone(tmp_path: Path) -> None:
    public, _ = a_key(tmp_path)
    loaded = load_settings({}, {"RIGFLOW_TRUSTED_SIGNERS": f"{public}, {public}"})
    assert loaded.trusted_signers == (public, public)
    for wrong in ("alice", (tmp_path / "key").read_text(), public[:-1]):
        with pytest.raises(UsageError, match="trusted_signers") as raised:
            load_settings({}, {"RIGFLOW_TRUSTED_SIGNERS": wrong})
        assert wrong[8:].strip() not in str(raised.value) or len(wrong) < 9, "it may be a seed"
