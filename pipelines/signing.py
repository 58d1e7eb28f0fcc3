"""Signatures of pipelines by nkeys. A process signs what it publishes with the nkey that it logs in with.

A signature covers all that decides the answers, also the models, which a published pipeline pins by their hashes. With
the setting `trusted_signers`, a process uses no pipeline that none of those keys signed.
"""

import base64
import binascii
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.login import seed_in
from schemas.errors import PipelineError
from schemas.pipeline import PipelineSpec
from schemas.settings import Settings

if TYPE_CHECKING:
    import nkeys

_SIGNED = "rigflow pipeline\n\0"  # no nonce of a login has these characters: `pipelines.nats_client`
_MOST = 8  # signatures of a pipeline


def signed(spec: PipelineSpec, settings: Settings) -> PipelineSpec:
    """The pipeline with a signature by the nkey of `settings.credentials`; as it is where that is no nkey."""
    pair = _login(settings)
    if pair is None:
        return spec
    signature = f"{pair.public_key.decode()}:{base64.b64encode(pair.sign(_content(spec))).decode()}"
    return with_signatures(spec, (*spec.signatures, signature))


def login_key(settings: Settings) -> str:
    """The public nkey that a process logs in with; "" where it has none."""
    pair = _login(settings)
    return "" if pair is None else str(pair.public_key.decode())


def _login(settings: Settings) -> "nkeys.KeyPair | None":
    try:
        seed = seed_in(Path(settings.credentials).read_text(errors="replace")) if settings.credentials else ""
    except OSError:  # the connection has been made with it: it was replaced since
        return None
    if not seed:
        return None
    import nkeys

    return nkeys.from_seed(bytearray(seed.encode()))


def with_signatures(spec: PipelineSpec, signatures: Collection[str]) -> PipelineSpec:
    """The pipeline with the last of these signatures, each once."""
    kept = tuple(dict.fromkeys(signatures))[-_MOST:]
    return spec.model_copy(update={"signatures": kept})


def check_signed(spec: PipelineSpec, trusted: Collection[str]) -> None:
    """Raise PipelineError unless one of the public keys `trusted` signed the pipeline, or there are none."""
    if not trusted:
        return
    signers = [signature.partition(":")[0] for signature in spec.signatures]
    known = [each for signer, each in zip(signers, spec.signatures, strict=True) if signer in trusted]
    if any(_is_valid(each, spec) for each in known):
        return
    by = f"was signed by {', '.join(signers)[:200]}" if signers else "is not signed"
    what = f"pipeline {spec.name}, revision {spec.revision}, {by}, and this process trusts other signers"
    raise PipelineError(what, "publish it with the nkey of one in `trusted_signers` as credentials")


def _content(spec: PipelineSpec) -> bytes:
    return f"{_SIGNED}{spec.digest}".encode()


def _is_valid(signature: str, spec: PipelineSpec) -> bool:
    from nacl.exceptions import BadSignatureError
    from nacl.signing import VerifyKey

    public, _, signed_text = signature.partition(":")
    try:
        key = VerifyKey(base64.b32decode(public)[1:33])  # between a byte for its kind and a checksum
        key.verify(_content(spec), base64.b64decode(signed_text, validate=True))
    except (binascii.Error, BadSignatureError, ValueError):
        return False
    return True
