"""Names of files in forms, as browsers and libraries send them."""

from collections.abc import AsyncIterator

import pytest

pytest.importorskip("fastapi")

from gateway.multipart import Form


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ('filename="中文.mp4"', "中文.mp4"),
        (r'filename="a\"b.mp4"', 'a"b.mp4'),
        (r'filename="C:\films\b.mp4"', "b.mp4"),
        ('filename="a;b.mp4"', "a;b.mp4"),
        ("filename*=UTF-8''na%C3%AFve%20x.mp4", "naïve x.mp4"),
        ("filename=\"=?utf-8?B?5Lit?=\"; filename*=utf-8''%E4%B8%AD.mp4", "中.mp4"),
        ("filename*=utf-8'en'%E4%B8%AD.mp4; filename=x.mp4", "中.mp4"),
        ("filename*=utf-8''%FF%00", "\N{REPLACEMENT CHARACTER}\0"),
        ('filename=""', ""),
    ],
)
async def test_a_file_has_the_name_that_its_sender_gave_it(sent: str, name: str) -> None:
    async def body() -> AsyncIterator[bytes]:
        for byte in f'--b\r\nContent-Disposition: form-data; name="file"; {sent}\r\n\r\nfilm\r\n--b--\r\n'.encode():
            yield bytes([byte])

    form = Form(b"b", body())
    fields, file = await form.read_fields()
    assert file is not None
    assert (fields, file.filename) == ([], name)
    assert b"".join([chunk async for chunk in form.chunks()]) == b"film"
