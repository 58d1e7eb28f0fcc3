"""`rigflow selftest`: whether rigflow works on this machine, by a real job."""

import base64
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.bundle_profiles import PROFILES
from cli.options import Json, ends_well
from cli.text import say, say_json
from schemas.errors import ExitCode, RigflowError, UsageError

if TYPE_CHECKING:
    from engines.part import Array

ALIKE = 0.98  # cosine; rounding to fp16 and other releases of codecs leave 0.999
# every other descriptor that `fingerprint` gives of the film, computed by a processor: int8, in steps of 1/200
RIGHT = (
    "Af3+gf1k/pcA/wD8APv9Av/8/fv9AQP9/vr6AfkBBP37AP34Af7/BQD8/AH//wH+APv+/wD/AQP8AP79AAAABQIAG87HK8/8AQD3/QkL"
    "9vwh9r0XDwEdAQjx9i/6ziQC7/4DBBYO4dzrFBTaBQnoJQr09yPu0x8e/fsFBvUJG+4BFevKESEP4wgKE/nyp9wH7AHy3g4fFOkY7wg7"
    "9xD7GfwR+d0A6gD55gME5gn/AfAi6QpC9w/7FfcW5dAC/Qv5"
)


@ends_well
def selftest(
    kind: Annotated[
        str, typer.Option("--for", help="What this machine should have: cpu, sm75 or sm61.", metavar="KIND")
    ] = "cpu",
    as_json: Json = False,
) -> ExitCode:
    """Draw a film, run a pipeline over it, compare the numbers with the right ones, and say pass, or why not.

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
            found = made["descriptor"]
    check(found, device)
    return f"a film of 6 s was decoded, computed and collected on {device}, and the numbers are right"


def check(descriptors: "Array", device: str) -> None:
    """Raise RigflowError unless these are, but for rounding, the descriptors of the film, `[6, 64] float32`."""
    import numpy as np

    if descriptors.shape != (6, 64):
        what = f"fail: a film of 6 s has descriptors of shape {list(descriptors.shape)}"
        raise RigflowError(what, "report this as a fault of rigflow")
    right = np.frombuffer(base64.b64decode(RIGHT), np.int8).reshape(3, 64).astype(float)
    with np.errstate(all="ignore"):  # zeros and infinite numbers are wrong ones
        products = (right * descriptors[::2]).sum(axis=1)
        alike = np.nan_to_num(products / np.linalg.norm(right, axis=1) / np.linalg.norm(descriptors[::2], axis=1))
    if alike.min() < ALIKE:
        what = f"fail: {device} computes wrong numbers: descriptors of the film are {alike.min():.2f} of 1 alike"
        raise RigflowError(what, "is it overclocked, too hot or worn? do not let it work: docs/cards.md")
