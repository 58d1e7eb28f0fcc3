"""What kind of media a file is by its name: on every machine and with every version of Python the same."""

import mimetypes
import os
from collections.abc import Collection
from functools import cache

_KINDS = mimetypes.MimeTypes(filenames=())  # without the lists of this machine: all machines leave the same files alone
# what Python's own list lacks, in some versions; `.ts` is not here, which is also a program in TypeScript
for _kind, _suffixes in (
    ("audio", "ac3 amr ape caf flac m4a m4b mka oga ogg opus tta w64 weba wma wv"),
    ("video", "3gp flv m2ts m4v mkv mts mxf ogv vob wmv"),
):
    for _suffix in _suffixes.split():
        _KINDS.add_type(f"{_kind}/x-{_suffix}", f".{_suffix}")
MEDIA_TYPES = ("image", "video", "audio")  # the first half of a MIME type, and kinds of media


def is_media_by_name(name: str, media: Collection[str] = MEDIA_TYPES) -> bool:
    """Whether the suffix of a file is one of pictures, videos or sound, and of these `media`."""
    kind = kind_of(os.path.splitext(name)[1])
    return kind in MEDIA_TYPES and kind in media


@cache
def kind_of(suffix: str) -> str:
    """The first half of the MIME type of a suffix; empty where that is not known."""
    return (_KINDS.guess_type(f"a{suffix}")[0] or "").split("/")[0]
