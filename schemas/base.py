"""The base of all that travels: pydantic models over msgpack bodies (`schemas.wire`)."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from schemas.errors import MessageError
from schemas.wire import Buffer, pack

VERSION = 1


class Message(BaseModel):
    """Base of all that travels: immutable meta; `encode` and `decode` add and take the buffers."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    version: int = VERSION

    def encode(self, buffers: Sequence[Buffer] = ()) -> bytes:
        """The body that carries this meta and `buffers`."""
        return pack(self.model_dump(mode="json"), buffers)

    def check(self, buffers: Sequence[Buffer]) -> None:
        """Check that this meta fits `buffers`, and that its fields fit each other. Raises MessageError."""
        if buffers:
            raise MessageError(f"it has {len(buffers)} buffers, and needs none")
