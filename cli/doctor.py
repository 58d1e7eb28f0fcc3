"""`rigflow doctor`: what this machine can do, what is missing, and what to do about it."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cli.interrupts import run_async
from cli.options import Json, SettingsFile, Store, default_store, ends_well, settings_from
from cli.text import cell, cells, say_json, stdout
from schemas.errors import ExitCode, RigflowError
from schemas.text import size

if TYPE_CHECKING:
    from engines.machine import Gpu
    from schemas.settings import Settings

DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg", "png", "webp")
ENCODERS = ("libx264", "mjpeg", "png")
LOW_DISK, LOW_MEMORY = 2 << 30, 2 << 30
AV_HINT = "pip install --force-reinstall av, whose wheels have them all"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `bad`: rigflow cannot run before it is repaired; `note`: it runs, with a restriction."""

    what: str
    state: Literal["good", "note", "bad"]
    found: str
    advice: str = ""


@ends_well
def doctor(store: Store = None, as_json: Json = False, settings_file: SettingsFile = None) -> ExitCode:
    """Say what this machine can do, and what is missing.

    And what to do about it. Exit code 0 when rigflow can run here.

    Example: rigflow doctor
    """
    settings = settings_from(settings_file, store=store)
    findings = examine(settings)
    if as_json:
        from dataclasses import asdict

        say_json([asdict(finding) for finding in findings])
    else:
        _show(findings)
    return ExitCode.SOME_FAILED if any(finding.state == "bad" for finding in findings) else ExitCode.OK


def examine(settings: "Settings") -> list[Finding]:
    """Make all checks; a check that fails itself is `bad`."""
    checks: dict[str, Callable[[], Finding | list[Finding]]] = {
        "Python": _python,
        "cores": lambda: _cores(settings),
        "memory": _memory,
        "decoders": _decoders,
        "encoders": _encoders,
        "ONNX Runtime": _onnxruntime,
        "broker": _broker,
        "store": lambda: _disk("store", Path(settings.store or default_store())),
        "temporary": lambda: _disk("temporary", Path(tempfile.gettempdir())),
        "GPUs": lambda: _gpus(settings),
    }
    findings: list[Finding] = []
    for what, check in checks.items():
        try:
            found = check()
            findings += found if isinstance(found, list) else [found]
        except RigflowError as error:
            findings.append(Finding(what, "bad", error.what, error.hint))
        except ImportError as error:
            findings.append(Finding(what, "bad", str(error), "install rigflow anew, in an environment of its own"))
    return findings


def _python() -> Finding:
    return Finding("Python", "good", ".".join(str(part) for part in sys.version_info[:3]))


def _cores(settings: "Settings") -> Finding:
    from engines.machine import cores
    from engines.profiling.host_name import host_id
    from engines.profiling.store import kept_profile

    profile = kept_profile(settings.cache_folder, host_id())
    return Finding("cores", "good", f"{cores()}, one worker each" + (f": {profile.summary}" if profile else ""))


def _memory() -> Finding:
    from engines.machine import memory_bytes

    memory = memory_bytes()
    if 0 < memory < LOW_MEMORY:
        return Finding("memory", "note", size(memory), "start fewer workers: each takes up to 0.5 GB")
    return Finding("memory", "good", size(memory) if memory else "unknown")


def _decoders() -> Finding:
    import av

    missing = [name for name in DECODERS if not _opens(name, "r")]
    about = f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}"
    if missing:
        return Finding("decoders", "note", f"{about}; cannot read {', '.join(missing)}", AV_HINT)
    return Finding("decoders", "good", f"{about}: {', '.join(DECODERS)}")


def _encoders() -> Finding:
    missing = [name for name in ENCODERS if not _opens(name, "w")]
    if missing:
        return Finding("encoders", "note", f"cannot write {', '.join(missing)}", AV_HINT)
    return Finding("encoders", "good", ", ".join(ENCODERS))


def _opens(name: str, mode: Literal["r", "w"]) -> bool:
    """Whether a codec exists and can be opened: FFmpeg may list one that cannot."""
    import av

    try:
        codec = av.CodecContext.create(name, mode)
        if isinstance(codec, av.VideoCodecContext) and mode == "w":
            codec.width, codec.height, codec.time_base = 64, 64, Fraction(1, 25)
            codec.pix_fmt = {"png": "rgb24", "mjpeg": "yuvj420p"}.get(name, "yuv420p")
        codec.open()
    except (av.FFmpegError, ValueError):  # ValueError: no codec of this name
        return False
    return True


def _onnxruntime() -> Finding:
    import onnxruntime

    providers = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    here = [name for name in providers if name != "Azure"]  # which calls a machine elsewhere, and is always listed
    found = f"{onnxruntime.__version__}, runs on {', '.join(here)}"
    if "CPU" not in providers:
        return Finding("ONNX Runtime", "bad", found, "pip install --force-reinstall onnxruntime")
    return Finding("ONNX Runtime", "good", found)


def _broker() -> Finding:
    """Start a broker and connect to it, which checks the binary, the loopback and the folder."""
    from pipelines.broker import Broker
    from pipelines.server import EmbeddedServer
    from schemas.settings import Settings
    from workers.local import running

    async def talk() -> str:
        async with (
            running(EmbeddedServer()) as server,
            Broker.connected(Settings(nats=server.url), name="rigflow-doctor") as broker,
        ):
            await broker.api("INFO")
            return str(broker.connection.nc.connected_server_version).strip("<>").removeprefix("nats server v")

    began = time.perf_counter()
    release = run_async(talk())
    took_ms = 1000 * (time.perf_counter() - began)
    return Finding(
        "broker", "good", f"nats-server {release} with JetStream starts, answers and stops in {took_ms:.0f} ms"
    )


def _disk(what: str, folder: Path) -> Finding:
    """Free space where a folder is or will be."""
    from pipelines.server import MIN_FREE_BYTES

    there = next(path for path in (folder, *folder.resolve().parents) if path.is_dir())
    if not os.access(there, os.W_OK):
        return Finding(what, "bad", f"{folder}: not writable", "choose another folder with --store, or TMPDIR")
    free = shutil.disk_usage(there).free
    if free < MIN_FREE_BYTES:
        found = f"{folder}: {size(free)} free, and a broker needs {size(MIN_FREE_BYTES)}"
        return Finding(what, "bad", found, "free some, or choose another folder with --store, or TMPDIR")
    if free < LOW_DISK:
        return Finding(what, "note", f"{folder}: {size(free)} free", "make room: a full disk stops publishing")
    return Finding(what, "good", f"{folder}: {size(free)} free")


def _gpus(settings: "Settings") -> list[Finding]:
    """A finding for each GPU, with the formats that its decoder and encoder opened."""
    from engines.machine import DriverError, gpu_files, gpus

    try:
        found = gpus()
    except DriverError as error:
        return [Finding("GPUs", "note", f"the NVIDIA driver does not work ({error})", "see nvidia-smi and dmesg")]
    if found:
        return [_gpu(gpu, settings) for gpu in found]
    if gpu_files():
        hint = "install the NVIDIA driver; in a container, start it with --gpus all"
        what = f"{len(gpu_files())} NVIDIA device files, but no driver that shows a GPU"
        return [Finding("GPUs", "note", what, hint)]
    return [Finding("GPUs", "good", "no NVIDIA GPU; rigflow computes on the CPU here")]


def _gpu(gpu: "Gpu", settings: "Settings") -> Finding:
    facts = [gpu.name, size(gpu.memory_bytes), f"compute capability {'.'.join(map(str, gpu.capability))}"]
    from engines.extras import install_extra
    from engines.machine import driver_version
    from engines.profiling.store import kept_profile

    profile = kept_profile(settings.cache_folder, gpu.uuid, driver_version())
    facts += [profile.summary] if profile else [gpu.link] if gpu.link else []
    facts += [] if profile else ["not measured with this driver: `rigflow profile` does"]

    try:
        from engines.cuda.probe import gpu_codecs

        decoders, encoders = gpu_codecs(f"cuda:{gpu.uuid}", settings.cache_folder)
        import onnxruntime
    except ImportError as error:
        return Finding(f"cuda:{gpu.uuid}", "note", f"{', '.join(facts)}; {error}", install_extra("gpu"))
    except RigflowError as error:
        return Finding(f"cuda:{gpu.uuid}", "note", f"{', '.join(facts)}; {error.what}", error.hint)
    facts += [f"decodes {', '.join(decoders) or 'nothing'}", f"encodes {', '.join(encoders) or 'nothing'}"]
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        hint = "pip uninstall onnxruntime, then pip install --force-reinstall onnxruntime-gpu"
        return Finding(f"cuda:{gpu.uuid}", "note", f"{', '.join(facts)}; ONNX Runtime has no CUDA", hint)
    return Finding(f"cuda:{gpu.uuid}", "good", ", ".join(facts))


def _show(findings: list[Finding]) -> None:
    from cli.tables import paragraphs

    marks = {"good": cell("ok", "green"), "note": cell("note", "yellow"), "bad": cell("missing", "bold red")}
    rows = []
    for finding in findings:
        advice = [(": ", ""), (finding.advice, "yellow")] if finding.advice else []
        rows.append((marks[finding.state], cell(finding.what, "bold"), cells((finding.found, ""), *advice)))
    bad = sum(finding.state == "bad" for finding in findings)
    verdict = cell(f"rigflow cannot run here: {bad} to mend", "bold red")
    verdict = verdict if bad else cell("rigflow can run here", "bold green")
    stdout().print(paragraphs(rows), "", verdict, sep="\n")
