"""The programs of docs/chat.md, which show answers while they are written, run on deltas of a real broker."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from queue import Queue

import nats
import pytest

from pipelines.server import EmbeddedServer
from schemas.jobs import JobRef, Key
from schemas.results import Delta
from schemas.subjects import HEADER_TYPE, Names
from tests.clients_doc import JS_PACKAGES, ROOT

DOCUMENT = (ROOT / "docs" / "chat.md").read_text()
JOB = JobRef(id="job-1", pipeline="chat", revision="r")
PROGRAMS = {
    "python": ("example.py", [sys.executable, "-u", "-W", "error"]),
    "javascript": ("example.mjs", [shutil.which("node") or "node"]),
}
WRITTEN = (  # row, generation, text: the worker of the first answer dies after two deltas
    (0, 1, "Pa"),
    (0, 1, "ris i"),
    (1, 1, "Grüße"),
    (0, 2, "Paris"),
    (0, 1, "s lost"),
    (1, 1, " aus Köln 🙂"),
    (0, 2, " is it."),
)
SHOWN = ["q0 Pa", "q0 Paris i", "q1 Grüße", "q0 Paris", "q1 Grüße aus Köln 🙂", "q0 Paris is it."]


def delta(row: int, generation: int, text: str, number: int = 0) -> bytes:
    key = Key(job=JOB, segment=0)
    return Delta(key=key, generation=generation, row=row, name=f"q{row}", number=number, text=text).encode()


def started(language: str, folder: Path, url: str) -> "subprocess.Popen[str]":
    """The program of the document in a language, in a folder."""
    name, command = PROGRAMS[language]
    if language == "javascript":
        if not JS_PACKAGES.exists():
            pytest.skip("the packages of @nats-io are not here: make test-js")
        (folder / "node_modules").symlink_to(JS_PACKAGES)
    [program] = re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    (folder / name).write_text(program)
    given = os.environ | {"NATS_URL": url, "PYTHONPATH": ""}
    return subprocess.Popen([*command, name], cwd=folder, env=given, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("language", PROGRAMS)
async def test_an_answer_grows_and_begins_again_with_another_worker(
    language: str, server: EmbeddedServer, tmp_path: Path
) -> None:
    process = started(language, tmp_path, server.url)
    lines: Queue[str] = Queue()
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: [lines.put(line.rstrip("\n")) for line in process.stdout or ()])
    reader.start()
    client = await nats.connect(server.url)
    subject, headers = Names().deltas(JOB), {HEADER_TYPE: "delta"}
    try:
        while lines.empty():  # until the program has subscribed
            assert process.poll() is None
            await client.publish(subject, delta(9, 1, "."), headers=headers)
            await asyncio.sleep(0.05)
        for row, generation, text in WRITTEN:
            await client.publish(subject, delta(row, generation, text), headers=headers)
        await client.flush()
        shown: list[str] = []
        while len(shown) < len(SHOWN):
            line = await asyncio.to_thread(lines.get, True, 60)
            shown += [] if line.startswith("q9") else [line]
        assert shown == SHOWN
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()
        await client.close()
