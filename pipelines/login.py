"""Options to log in to a broker, and the reason when a broker refuses."""

import os
import re
import ssl
from pathlib import Path
from typing import Any

import nats.errors

from pipelines.local_access import PASSWORD, USER, other_brokers, password_for
from schemas.errors import BrokerError, UsageError

_SEED = re.compile(r"\bSU[A-Z2-7]{56}\b")
URL_FROM = "--nats or RIGFLOW_NATS"  # what gives the URL of a broker
CONNECT_S = 10.0  # a broker that is away refuses at once; a busy one needs time


def local_broker_options(urls: str) -> dict[str, Any]:
    """Options for nats-py to reach a broker that `rigflow up` started on this machine."""
    password = password_for(urls)
    return {"user": USER, "password": password} if password else {}


def credential_options(path: str) -> dict[str, Any]:
    """Options for nats-py from the path of an nkey seed, a .creds file or a password's file. Raises UsageError."""
    if not path:
        return {}
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise UsageError(f"credentials {path}: {reason}", "give the path of an nkey seed or a .creds file") from error
    if "BEGIN NATS USER JWT" in text:
        return {"user_credentials": path}
    if PASSWORD.fullmatch(text.strip()):
        return {"user": USER, "password": text.strip()}
    if not (seed := seed_in(text)):
        raise UsageError(f"credentials {path}: not an nkey seed, not a .creds file", "check the path")
    return {"nkeys_seed_str": seed}


def seed_in(text: str) -> str:
    """The nkey seed of a user in a text, alone or in that of a .creds file; "" where there is none."""
    import nkeys

    for seed in _SEED.findall(text):
        try:
            nkeys.from_seed(bytearray(seed.encode()))
        except nkeys.NkeysError:  # a wrong checksum
            continue
        return str(seed)
    return ""


class Refused(BrokerError):
    """The broker does not know these credentials."""


def refusal(where: str, error: Exception, given: bool, keys: bool) -> BrokerError:
    """Why there is no connection to the broker at `where`, and what to do.

    `given`: with credentials; `keys`: the broker knows keys, which that of `rigflow up` does not.
    """
    reason = reason_of(error)
    if isinstance(error, nats.errors.Error) and "authorization" in reason.lower():
        hint = "the password of `rigflow up` is in the file `password` of its --store, which --credentials takes"
        if keys:
            hint = "--credentials takes the file of a key that the broker knows, as operator.nk"
        if others := other_brokers(where):
            hint = f"{hint}; your own broker here is at {' and '.join(others)}: give it by --nats"
        if not given:
            return BrokerError(f"the broker at {where} asks for credentials, and none are given", hint)
        return Refused(f"the broker at {where} refuses these credentials", f"check them; {hint}")
    if isinstance(error, nats.errors.Error):
        return BrokerError(f"the broker at {where} refuses us ({reason})", "check its log")
    if isinstance(error, ssl.SSLCertVerificationError):
        what = f"the certificate of the broker at {where} is not trusted ({error.verify_message})"
        return BrokerError(what, "set tls_ca to the CA that signed it")
    if isinstance(error, ssl.SSLError):
        what = f"the broker at {where} speaks no TLS with us ({error.reason or error})"
        return BrokerError(what, "use nats:// if it has no TLS, and tls_cert if it wants a certificate")
    others = other_brokers(where)
    yours = f"give that of your own broker here, {' or '.join(others)}, or " if others else ""
    hint = f"start one with `rigflow up`, or {yours}check the URL of {URL_FROM}"
    return BrokerError(f"no broker at {where} ({reason})", hint)


def reason_of(error: Exception) -> str:
    """What an error of nats-py or of the system says, in words."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno) if error.errno > 0 else str(error.strerror)
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_S:.0f} s"
    return str(error).removeprefix("nats: ").strip("'") or type(error).__name__
