"""What the broker has of an upload that can be interrupted, see `pipelines.resumable`."""

from pydantic import BaseModel, ConfigDict

from schemas.declared import Name
from schemas.fields import Count, GivenName, Label
from schemas.jobs import Priority


class Upload(BaseModel):
    """What an upload is for: `size` bytes, which become a job of its id and of `revision` once they are there.

    `chunks` is the subject token of the bytes; `published`: they became the job. `unchecked`: where bytes begin that
    were not compared with their checksum yet, or whose receiver ended before; None: there are none.
    """

    model_config = ConfigDict(frozen=True)
    id: Name
    size: Count
    chunks: Name
    revision: Name
    chosen: bool
    published: bool = False
    unchecked: Count | None = None
    priority: Priority
    name: GivenName = ""
    content_type: Label = ""
