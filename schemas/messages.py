"""All messages as one type. Every id is derived, never random.

`decode` accepts any bytes: it returns a message whose numbers, ids and arrays are checked, or raises MessageError.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError

from schemas.base import VERSION, Message
from schemas.errors import MessageError, format_field_error
from schemas.fields import GivenName, clean_name
from schemas.jobs import JobRef
from schemas.parts import PartMessage
from schemas.results import Delta, Done, Failure, Result
from schemas.segments import Fragment, Segment
from schemas.wire import Buffer, unpack


class CollectRequest(Message):
    """Asks a worker that hosts `collect` to finish a job for a publisher that has only NATS; `name` is the media's."""

    type: Literal["collect"] = "collect"
    job: JobRef
    name: GivenName = ""


AnyMessage: TypeAlias = Annotated[
    Segment | PartMessage | Result | Fragment | Failure | Done | Delta | CollectRequest, Field(discriminator="type")
]

_ANY: TypeAdapter[AnyMessage] = TypeAdapter(AnyMessage)


def decode(body: Buffer) -> tuple[AnyMessage, list[memoryview]]:
    """Return `(message, buffers)` of a body; its arrays fit their buffers. Raises only MessageError."""
    meta, buffers = unpack(body)
    try:
        if meta.get("version") != VERSION:
            raise MessageError(f"it is not of version {VERSION}, the one that this rigflow reads")
        message = _ANY.validate_python(meta)
        message.check(buffers)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise MessageError(f"not a rigflow message: {clean_name(format_field_error(first))}") from error
    except MessageError as error:
        raise MessageError(f"not a rigflow message: {clean_name(error.what)}") from error
    return message, buffers
