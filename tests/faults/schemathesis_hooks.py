"""Makes bodies of the type that tus has for parts of uploads."""

from typing import Any

import schemathesis


@schemathesis.serializer("application/offset+octet-stream")
def offset(context: schemathesis.SerializationContext, value: Any) -> bytes:
    """Bytes as they are."""
    return value if isinstance(value, bytes) else str(value).encode()
