"""Claim checks by name: which object of the blob store holds the body of which message.

The name of the object begins with a digest of its message's subject and id. So a message can name only an object that
was stored for this very message: a client that may publish on one subject cannot have the object of another subject
read or deleted, whatever it writes into its headers.
"""

import hashlib
from collections.abc import Mapping

from schemas.subjects import HEADER_BLOB, HEADER_ID

OWNER_DIGITS = 32
SUBJECT = "subject"  # metadata of the object: its message's subject


def claim_name(subject: str, message_id: str, unique: str) -> str:
    """Name of the object for one attempt to publish a message; `unique` differs for each attempt."""
    return f"{_owner(subject, message_id)}.{unique}"


def claim_of(subject: str, headers: Mapping[str, str]) -> str:
    """Name of the object that holds a message's body; empty when the body is in the message.

    A header with the name of another message's object is ignored.
    """
    name = headers.get(HEADER_BLOB, "")
    return name if name and name.startswith(f"{_owner(subject, headers.get(HEADER_ID, ''))}.") else ""


def _owner(subject: str, message_id: str) -> str:
    return hashlib.sha256(f"{subject}\0{message_id}".encode(errors="surrogateescape")).hexdigest()[:OWNER_DIGITS]
