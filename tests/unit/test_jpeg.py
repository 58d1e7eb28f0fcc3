"""The segments of a jpeg, which its header and the search for Motion JPEG walk over alike."""

from engines.media.jpeg import SCAN, has_end, jpeg_header, segments
from engines.media.read_at import reader
from engines.media.sniff import is_animation
from tests.clips import still

PHOTO = still("mjpeg", (48, 64))


def with_fill(photo: bytes) -> bytes:
    """The same picture: T.81, B.1.1.2 allows any number of bytes 255 before a marker."""
    return photo[:2] + b"\xff\xff\xff" + photo[2:]


def test_fill_bytes_before_a_marker_change_nothing() -> None:
    plain, filled = (list(segments(reader(each))) for each in (PHOTO, with_fill(PHOTO)))
    assert [(marker, at + 3) for marker, at in plain] == filled
    assert filled[-1][0] == SCAN
    assert jpeg_header(reader(with_fill(PHOTO))) == jpeg_header(reader(PHOTO))


def test_exif_data_are_found_in_front_of_the_pixels() -> None:
    exif = b"\xff\xe1\0\x0aExif\0\0MM"
    scan = next(at for marker, at in segments(reader(PHOTO)) if marker == SCAN)
    behind = PHOTO.replace(b"\xff\xd9", exif + b"\xff\xd9")
    other = PHOTO[:2] + b"\xff\xe1\0\x0ahttp://a" + PHOTO[2:]
    for photo, found in (
        (PHOTO, False),
        (PHOTO[:2] + exif + PHOTO[2:], True),
        (PHOTO[:scan] + exif + PHOTO[scan:], True),
        (behind, False),
        (other, False),
    ):
        header = jpeg_header(reader(photo))
        assert header is not None
        assert header.exif is found


def test_motion_jpeg_is_known_with_fill_bytes_too() -> None:
    for photo in (PHOTO, with_fill(PHOTO)):
        assert not is_animation("jpeg", reader(photo))
        assert is_animation("jpeg", reader(photo * 3))


def test_a_walk_over_damaged_segments_ends() -> None:
    for size in range(0, 700, 7):
        cut = list(segments(reader(PHOTO[:size])))
        assert cut[-1] == (0, cut[-1][1]) or cut[-1][0] == SCAN
    assert list(segments(reader(b"\xff\xd8" + bytes(20)))) == [(0, 2)]
    assert jpeg_header(reader(b"\xff\xd8\xff\xc0\0\x11")) is None


def test_the_end_of_a_preview_is_not_the_end_of_the_picture() -> None:
    """Cameras store a small jpeg inside of the EXIF data: a file that was cut off behind it is not complete."""
    body = b"Exif\0\0" + PHOTO
    photo = PHOTO[:2] + b"\xff\xe1" + (2 + len(body)).to_bytes(2, "big") + body + PHOTO[2:]
    assert has_end(PHOTO)
    assert has_end(photo)
    assert has_end(photo + b"more" * 100)
    for size in range(len(photo) - 2, 0, -37):
        assert not has_end(photo[:size])
