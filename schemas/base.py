"""The base of all messages: pydantic models over msgpack bodies (`schemas.wire`)."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from schemas.errors import MessageError
from schemas.wire import Buffer, Pieces, pack_pieces

VERSION = 1


class Message(BaseModel):
    """Base of all messages: immutable meta; `encode` adds the buffers, `schemas.messages.decode` returns them."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    version: int = VERSION

    def encode(self, buffers: Sequence[Buffer | Pieces] = ()) -> bytes:
        """Return the body with this meta and `buffers`."""
        return bytes(self.pieces(buffers))

    def pieces(self, buffers: Sequence[Buffer | Pieces] = ()) -> Pieces:
        """Return the body as `encode` does, without a copy of the buffers."""
        return pack_pieces(self.model_dump(mode="json"), buffers)

    def check(self, buffers: Sequence[Buffer]) -> None:
        """Check that this meta fits `buffers`, and that its fields fit each other. Raises MessageError."""
        if buffers:
            raise MessageError(f"it has {len(buffers)} buffers, but needs none")
