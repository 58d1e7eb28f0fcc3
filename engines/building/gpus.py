"""Describes each generation of GPUs: the precisions that suit it, and the GPUs that share a plan."""

import re
from collections.abc import Sequence

from schemas.engine import Precision
from schemas.errors import UsageError

RTX = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")  # what TensorRT-RTX 1.7 builds for
COMMON = ("sm75", "sm86", "sm89", "sm120")  # GeForce 16/20, 30, 40 and 50


def parse_targets(text: str) -> tuple[str, ...]:
    """Convert `sm75,8.6` to `("sm75", "sm86")`, sorted, each once; `all` is the common ones. Raises UsageError."""
    if text.strip() == "all":
        return COMMON
    found = set()
    for word in filter(None, re.split(r"[,\s]+", text)):
        number = re.fullmatch(r"(?:sm_?)?(\d{1,2})\.?(\d)", word.lower())
        if not number:
            raise UsageError(f"{word} is no kind of GPU", f"write {','.join(COMMON)}, or all")
        found.add(f"sm{int(number[1])}{number[2]}")
    if not found:
        raise UsageError("no kind of GPU was named", f"write --for {','.join(COMMON)}, or all")
    return tuple(sorted(found, key=number_of))


def number_of(target: str) -> int:
    """Convert `sm86` to 86."""
    return int(target.removeprefix("sm"))


def target_of(capability: tuple[int, int]) -> str:
    """Convert CUDA's (8, 6) to `sm86`."""
    return f"sm{capability[0]}{capability[1]}"


def plans_for(targets: Sequence[str]) -> list[tuple[str, ...]]:
    """Group GPUs by plan of TensorRT-RTX: a plan that includes Turing is built for Turing, and slower on all others."""
    unknown = [target for target in targets if target not in RTX]
    if unknown:
        raise UsageError(
            f"TensorRT-RTX builds no engine for {unknown[0]}, only for {', '.join(RTX)}",
            "build it with `--backend tensorrt` on a machine with that GPU"
            if number_of(unknown[0]) >= 60
            else "that GPU is too old",
        )
    turing = tuple(target for target in targets if target == "sm75")
    newer = tuple(target for target in targets if target != "sm75")
    return [group for group in (turing, newer) if group]


def advised(target: str) -> Precision:
    """Return the precision that `auto` means on a kind of GPU."""
    return "fp16" if number_of(target) >= 70 else "fp32"


def objection(target: str, precision: Precision) -> tuple[str, str] | None:
    """Return the reason against a precision on a kind of GPU, and the alternative; None if it suits the GPU."""
    number = number_of(target)
    if number < 70 and precision == "fp16":
        if number == 60:  # GP100 has twice the rate, but no tensor cores
            return "sm60 has no tensor cores: fp16 gains a factor of two at most", "measure it against fp32"
        rate = "1/64 of" if number == 61 else "no more than"
        return f"{target} computes fp16 at {rate} the rate of fp32", "take int8, which it has DP4A for, or fp32"
    if number == 60 and precision == "int8":
        return "sm60 has no DP4A: int8 is no faster there than fp32", "take fp32"
    return None


def check_precision(target: str, precision: Precision, anyway: bool = False) -> str:
    """Return a warning, or "" if the precision suits the GPU. Raises UsageError for a precision that does not.

    `anyway` turns the error for a slow GPU into a warning.
    """
    found = objection(target, precision)
    if found is None:
        return ""
    what, hint = found
    if anyway or number_of(target) == 60:
        return f"{what}; {hint}"
    raise UsageError(what, f"{hint}; --anyway builds it all the same")
