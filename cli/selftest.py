"""`rigflow selftest`: whether rigflow works on this machine, by a real job."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from cli.bundle_profiles import PROFILES
from cli.options import Json, ends_well
from cli.text import say, say_json
from schemas.errors import ExitCode, RigflowError, UsageError


@ends_well
def selftest(
    kind: Annotated[
        str, typer.Option("--for", help="What this machine should have: cpu, sm75 or sm61.", metavar="KIND")
    ] = "cpu",
    as_json: Json = False,
) -> ExitCode:
    """Draw a film, run a pipeline over it, and say pass, or why not.

    On its first GPU for sm75 and sm61. Exit code 0 for pass.

    Example: rigflow selftest --for sm61
    """
    if kind not in PROFILES:
        raise UsageError(f"--for {kind}", f"there are {', '.join(PROFILES)}")
    capability = PROFILES[kind].capability
    device = "cpu" if capability is None else gpu_of(capability)
    what = run_on(device)
    if as_json:
        say_json({"passed": True, "device": device, "what": what})
    else:
        say(f"pass: {what}")
    return ExitCode.OK


def gpu_of(capability: tuple[int, int]) -> str:
    """The first GPU, which has at least this capability, and what runs models on it. Raises RigflowError."""
    from engines.machine import DriverError, gpus

    try:
        found = gpus()
    except DriverError as error:
        raise RigflowError(f"fail: the NVIDIA driver does not work ({error})", "see nvidia-smi") from error
    if not found:
        raise RigflowError("fail: there is no NVIDIA GPU", "is its driver installed? see nvidia-smi")
    first = found[0]
    has = ".".join(map(str, first.capability))
    wants = ".".join(map(str, capability))
    if first.capability < capability or (capability < (7, 0)) != (first.capability < (7, 0)):
        raise RigflowError(f"fail: {first.name} has sm {has}, and this bundle is for {wants}", "take another bundle")
    try:
        import onnxruntime
        import pycuda.driver  # noqa: F401
    except ImportError as error:
        raise RigflowError(
            f"fail: {error.name} cannot be imported ({error})", "install it in this environment"
        ) from None
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise RigflowError("fail: this ONNX Runtime computes on no GPU", "install onnxruntime-gpu after onnxruntime")
    return f"cuda:{first.uuid or 0}"


def run_on(device: str) -> str:
    """Run `fingerprint` over a drawn film on a device; what was done, in words. Raises RigflowError."""
    import numpy as np

    from cli.samples import draw_film

    with tempfile.TemporaryDirectory(prefix="rigflow-selftest-") as folder:
        film, out = Path(folder) / "film.mp4", Path(folder) / "out"
        draw_film(film)
        command = [sys.executable, "-P", "-m", "cli", "run", "fingerprint", str(film), "--out", str(out)]
        settings = Path(folder) / "settings.toml"
        settings.write_text(f'device = "{device}"\n')
        words = [*command, "--workers", "1", "--settings", str(settings)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["it says nothing"]
            raise RigflowError(
                f"fail: a job on {device} ended with code {done.returncode}: {last[0]}", "rigflow doctor"
            )
        with np.load(out / "film.fingerprint.npz") as made:
            count = len(made["times"])
    if count != 6:
        raise RigflowError(f"fail: a film of 6 s has {count} descriptors", "report this as a fault of rigflow")
    return f"a film of 6 s was decoded, computed and collected on {device}"
