"""All errors of rigflow, each with a hint that says what to do.

A class has two properties: its *disposition*, which decides how a worker settles the message that caused it, and its
exit code, with which the command line ends. This module imports nothing of rigflow.
"""

import os
import re
from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import Any, ClassVar, Self

from schemas.text import printable, shortened, without_passwords

_CAPITALS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
ERROR_CHARACTERS = 2000  # of what an error says, which may quote a value of any size


class Disposition(StrEnum):
    """How a worker settles the message that caused an error."""

    RETRY = "retry"  # nak with a delay: the same work may succeed later or on another worker
    REJECT = "reject"  # failure result, dead letter, term: this input always fails
    ELSEWHERE = "elsewhere"  # nak with a delay, and no attempt is counted: another worker has what is missing here
    FATAL = "fatal"  # as retry, and end the process: this worker can no longer work, whatever the cause


class ExitCode(IntEnum):
    """Exit codes of the command line and of workers; `docs/cli.md` lists them for users."""

    OK = 0
    SOME_FAILED = 1
    USAGE = 2
    BROKER = 3
    STORE = 4
    OUTPUT = 5
    DEVICE_LOST = 6
    GIVEN_UP = 7
    CUT_SHORT = 8
    HUNG_UP = 129  # 128 and the signal's number, as in shells
    INTERRUPTED = 130
    READER_GONE = 141
    TERMINATED = 143


def reason_of(detail: Mapping[str, Any]) -> str:
    """Return what is wrong with one field, from an entry of pydantic's `ValidationError.errors()`."""
    if detail["type"] == "extra_forbidden":
        return "unknown field"
    if detail["type"] == "missing":
        return "missing"
    reason = str(detail["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    if detail["type"] in ("tuple_type", "too_long", "too_short"):  # pydantic names Python's type
        reason = reason.replace("Tuple", "list").replace("tuple", "list").replace(" after validation", "")
    return reason[:1].lower() + reason[1:]


def format_field_error(detail: Mapping[str, Any]) -> str:
    """Return the same text, preceded by the dotted path of the field if there is one."""
    path = ".".join(map(str, detail["loc"]))
    return f"{path}: {reason_of(detail)}" if path else reason_of(detail)


class RigflowError(Exception):
    """Base of all errors of rigflow: one line that says what happened, and one that says what to do.

    Errors travel between processes by pickle, so the arguments of each class are these two.
    """

    disposition: ClassVar[Disposition] = Disposition.REJECT
    exit_code: ClassVar[ExitCode] = ExitCode.SOME_FAILED

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        what, hint = shortened(self.what, ERROR_CHARACTERS), shortened(self.hint, ERROR_CHARACTERS)
        return printable(without_passwords(f"{what}: {hint}" if hint else what))


def error_code(error: BaseException | type[BaseException]) -> str:
    """Return the name of an error's class in lower case with hyphens, for programs: "pipeline-error"."""
    kind = error if isinstance(error, type) else type(error)
    return _CAPITALS.sub("-", kind.__name__).lower()


def format_error(error: BaseException) -> str:
    """Return the error in one line; for other errors than RigflowError it begins with the name of the class."""
    text = " ".join(str(error).split())[:ERROR_CHARACTERS]
    return text if isinstance(error, RigflowError) else f"{type(error).__name__}: {text}".removesuffix(": ")


def listen_error(error: OSError) -> str:
    """Return why an address cannot be listened on; the texts of `socket` and `asyncio` have the address again."""
    number = error.errno or 0  # that of a name without an address is below 0
    return os.strerror(number) if number > 0 else str(error.strerror or error).partition(" (while")[0]


def first_error(group: BaseException) -> BaseException:
    """Return the error to report of a (nested) group: the first RigflowError, or else the first error."""
    leaves = _leaves(group)
    return next((leaf for leaf in leaves if isinstance(leaf, RigflowError)), leaves[0])


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for each in error.exceptions for leaf in _leaves(each)]


class UsageError(RigflowError):
    """The caller asked for something impossible: a path, a name, an option."""

    exit_code = ExitCode.USAGE


class NotFound(UsageError):
    """What the caller asked for by its name or number is not there."""


class PipelineError(UsageError):
    """A pipeline file or a pipeline name is not usable; the message has the line and the field."""


class PipelineUnknown(PipelineError, NotFound):
    """The fleet knows no pipeline of this name or revision."""


class ModelError(UsageError):
    """A model is missing, unreadable, or does not fit the stage that uses it."""


class SelfTestFailed(ModelError):
    """An engine does not answer as it has to. If it does so on other cards of a kind, the card errs."""


class OptionError(ModelError):
    """An option of a head or of its decoder is wrong: its path in the head's table, and the reason."""

    option: tuple[str, ...] = ()
    reason: str = ""

    @classmethod
    def of(cls, owner: str, option: tuple[str, ...], reason: str, hint: str) -> Self:
        """The error of an option of `owner`, a head or a decoder."""
        error = cls(f"{owner}, option {'.'.join(option)}: {reason}", hint)
        error.option, error.reason = option, reason
        return error


class StageFieldError(PipelineError):
    """A field of a stage is wrong: its path in the stage's table, and the reason."""

    stage: str = ""
    field: tuple[str, ...] = ()
    reason: str = ""

    @classmethod
    def of(cls, stage: str, field: tuple[str, ...], reason: str, hint: str) -> Self:
        """The error of a field of a stage."""
        error = cls(f"stage {stage}, {'.'.join(field)}: {reason}", hint)
        error.stage, error.field, error.reason = stage, field, reason
        return error


class ModelMissing(ModelError):
    """A model that the user must provide does not exist."""


class PluginMissing(RigflowError):
    """Work needs an installed package, or a device, that this worker does not have; another worker may have it."""

    disposition = Disposition.ELSEWHERE
    exit_code = ExitCode.USAGE


class MessageError(RigflowError, ValueError):
    """A message or a header is not one of rigflow: other bytes, wrong content, another version."""


class MediaError(RigflowError):
    """The input is not media, is empty, has no picture, or is damaged beyond use."""


class OtherMedia(MediaError, UsageError):
    """The input is media of another kind than its pipeline takes, as sound where it takes video."""


class ItemTooLarge(RigflowError):
    """One item needs more memory than any worker allows it (for example a decompression bomb)."""


class BrokerError(RigflowError):
    """The broker is unreachable, refuses the connection, or lacks what a command needs."""

    disposition = Disposition.RETRY
    exit_code = ExitCode.BROKER


class StoreError(RigflowError):
    """The broker's store is locked, full or unreadable."""

    disposition = Disposition.RETRY
    exit_code = ExitCode.STORE


class OutputError(RigflowError):
    """A result cannot be written where the user wants it."""

    exit_code = ExitCode.OUTPUT


class GivenUp(RigflowError):
    """Every worker ended too often to continue."""

    exit_code = ExitCode.GIVEN_UP


class DeviceLost(RigflowError):
    """The device's context is poisoned; only a new process can use the device again."""

    disposition = Disposition.FATAL
    exit_code = ExitCode.DEVICE_LOST
