"""The Python of docs/clients.md, run as it stands: plain nats-py against a real broker and a real worker."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import nats
import numpy as np

from pipelines.broker import Broker
from pipelines.registry import builtin_pipeline
from schemas.settings import Settings
from schemas.subjects import Names
from tests.clips import Clip, make_clip, still
from tests.fleet import ONE_WORKER, Fleet
from workers.definitions import register_builtin

DOCUMENT = Path(__file__).parents[2] / "docs" / "clients.md"
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


def test_the_blocks_in_order_give_what_the_text_says(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(still("mjpeg", size=(48, 64)))
    clip = make_clip(tmp_path, Clip(frames=130, sound="aac"))
    clip.rename(tmp_path / "clip.mp4")
    (tmp_path / "example.py").write_text("\n".join(BLOCKS))
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        asyncio.run(register_builtin(fleet.settings))
        ran = subprocess.run(
            [sys.executable, "-W", "error", "example.py"],
            cwd=tmp_path,
            env=os.environ | {"NATS_URL": fleet.settings.nats},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert (ran.returncode, ran.stderr) == (0, "")
        [ours] = fleet.run(builtin_pipeline("fingerprint"), [tmp_path / "clip.mp4"], tmp_path / "ours")
    first, second, third = ran.stdout.splitlines()
    assert first == "[PosixPath('photo.upscale2x.png')]"
    assert second == "[PosixPath('clip.upscale2x.mp4')]"
    with av.open(str(tmp_path / "photo.upscale2x.png")) as container:
        assert next(container.decode(video=0)).to_ndarray(format="rgb24").shape == (96, 128, 3)
    with av.open(str(tmp_path / "clip.upscale2x.mp4")) as container:
        frames = [(frame.height, frame.width) for frame in container.decode(video=0)]
        assert frames == [(144, 256)] * 130
    with av.open(str(tmp_path / "clip.upscale2x.mp4")) as container, av.open(str(tmp_path / "clip.mp4")) as source:
        assert [bytes(packet) for packet in container.demux(audio=0)] == [
            bytes(packet) for packet in source.demux(audio=0)
        ]
    assert ours.done is not None
    with np.load(tmp_path / "ours" / ours.done.files[0]) as arrays:
        assert third == str(arrays["descriptor"].shape)


def test_a_result_larger_than_a_message_comes_by_the_object_store(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(noise_picture())
    (tmp_path / "example.py").write_text(BLOCKS[0])
    with Fleet(ONE_WORKER, tmp_path / "cache") as fleet:
        asyncio.run(register_builtin(fleet.settings))
        environment = os.environ | {"NATS_URL": fleet.settings.nats}
        subprocess.run([sys.executable, "example.py"], cwd=tmp_path, env=environment, check=True, timeout=100)
    assert (tmp_path / "photo.upscale2x.png").stat().st_size > 8 << 20
    with av.open(str(tmp_path / "photo.upscale2x.png")) as container:
        assert next(container.decode(video=0)).width == 2048


def noise_picture() -> bytes:
    """Noise does not compress: a picture of 3 MB becomes one of 12 MB."""
    noise = np.random.default_rng(1).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    context = av.CodecContext.create("png", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt = 1024, 1024, "rgb24"
    context.time_base = 1
    return bytes(context.encode(av.VideoFrame.from_ndarray(noise, "rgb24"))[0])


async def test_a_name_with_folders_in_it_stays_in_the_folder(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "photo.jpg").write_bytes(b"any")
    (tmp_path / "here" / "example.py").write_text(BLOCKS[0])
    await register_builtin(settings)
    client = await nats.connect(settings.nats)
    subject = "rigflow.results.main.upscale2x.photo-1"
    names = ["../outside.png", f"{tmp_path}/absolute.png", "inside.png"]
    for number, name in enumerate([*names, ".."]):
        headers = {"Rigflow-Type": "file", "Rigflow-Name": name, "Nats-Msg-Id": str(number)}
        await client.jetstream().publish(subject, name.encode(), headers=headers)
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "example.py"],
        cwd=tmp_path / "here",
        env=os.environ | {"NATS_URL": settings.nats},
        capture_output=True,
        text=True,
        timeout=60,
    )
    await client.close()
    assert "ValueError: not the name of a file: '..'" in ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    made = sorted(path.name for path in (tmp_path / "here").iterdir())
    assert made == ["absolute.png", "example.py", "inside.png", "outside.png", "photo.jpg"]


async def test_publishing_waits_while_the_fleet_is_full(settings: Settings) -> None:
    [block] = [block for block in BLOCKS if "publish_for_sure" in block]
    namespace: dict[str, Any] = {"asyncio": asyncio}
    exec(compile(block, str(DOCUMENT), "exec"), namespace)
    await register_builtin(settings)
    client = await nats.connect(settings.nats)
    broker = client.jetstream()
    subject, body = "rigflow.media.main.upscale2x", bytes(3 << 20)
    for _ in range(2):  # the second time it is a repeat
        await namespace["publish_for_sure"](broker, subject, body, {"Rigflow-Job": "a"}, "a")
    waiting = asyncio.create_task(namespace["publish_for_sure"](broker, subject, body, {"Rigflow-Job": "b"}, "b"))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    ours = await Broker.connect(settings)
    media = Names(settings.prefix).media_stream("upscale2x")
    assert len([stored async for stored in ours.read(media)]) == 1
    await ours.purge(media, ">")
    await asyncio.wait_for(waiting, 60)
    assert [stored.headers["Rigflow-Job"] async for stored in ours.read(media)] == ["b"]
    await ours.close()
    await client.close()
