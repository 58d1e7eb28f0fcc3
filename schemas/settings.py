"""Settings: one frozen object, made once by the command line. CLI > environment `RIGFLOW_*` > file > default."""

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from schemas.errors import UsageError, format_field_error
from schemas.hours import Hours
from schemas.known_fields import hint_of
from schemas.toml import TomlError, parse_toml

MIB = 1 << 20
CACHE_HINT = "set RIGFLOW_CACHE, or the setting `cache`, to another folder"  # if the cache is not writable
HOSTS = r"\*|\*\.[a-z0-9.-]+|[a-z0-9.:_-]+"  # of the setting url_hosts
DEVICE = r"^(cpu|cuda:([0-9]+|GPU-[0-9a-f-]{36}))$"


class Durability(StrEnum):
    """The failures that the broker's streams survive; docs/operations.md states the cost of each."""

    PROCESS = "process"  # the end of any process: one broker, which syncs its files every two minutes
    POWER = "power"  # a power failure too: one broker, which syncs before it acknowledges
    CLUSTER = "cluster"  # the loss of a machine: three brokers, every stream on all of them

    @property
    def replicas(self) -> int:
        """Copies of each stream."""
        return 3 if self is Durability.CLUSTER else 1


def home_folder() -> Path:
    """Return the user's home. Raises UsageError if there is none."""
    try:
        return Path.home()
    except RuntimeError as error:
        raise UsageError("this user has no home folder", "set HOME, or RIGFLOW_CACHE and RIGFLOW_STORE") from error


class LogFormat(StrEnum):
    """How a line of a log is written: `key=value ...`, or one object of JSON."""

    LOGFMT = "logfmt"
    JSON = "json"


class LogLevel(StrEnum):
    """The least level of what a log has."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Settings(BaseModel):
    """Everything that may be set; `docs/settings.md` is made from this class."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nats: str = Field(default="", description="URL of the broker; empty: start one here")
    credentials: str = Field(default="", description="path of an nkey seed or .creds file")
    trusted_signers: tuple[str, ...] = Field(
        default=(),
        description="public nkeys, `,` between them: only pipelines that one of them signed are used; empty: all are",
    )
    tls_ca: str = Field(
        default="", description="path of the CA that signed the broker's certificate; empty: the system's"
    )
    tls_cert: str = Field(default="", description="path of a client certificate for the broker")
    tls_key: str = Field(default="", description="path of its key; empty: it is in the same file")
    tls_verify: bool = Field(default=True, description="whether the broker's certificate must be valid for its name")
    inbox: str = Field(
        default="_INBOX", pattern=r"^[A-Za-z0-9_-]+$", description="first token of the subjects of answers"
    )
    shared: tuple[str, ...] = Field(
        default=(),
        description="folders that publisher and workers both see, `:` between them: images in them are sent as paths",
    )
    prefix: str = Field(default="rigflow", pattern=r"^[a-z0-9]+$", description="first token of all subjects")
    tenant: str = Field(
        default="main", pattern=r"^[A-Za-z0-9_-]+$", description="tenant of the jobs: a token of the public subjects"
    )
    store: str = Field(default="", description="folder of the embedded broker's store; empty: a default by command")
    port: int = Field(default=0, ge=0, le=65535, description="port of the embedded broker; 0: any that is free")
    durability: Durability = Field(
        default=Durability.PROCESS, description="failures that streams survive: process, power or cluster"
    )
    store_bytes: int = Field(default=65536 * MIB, ge=64 * MIB, description="most bytes the embedded broker may store")
    queue_bytes: int = Field(default=256 * MIB, ge=MIB, description="most bytes queued in front of one stage")
    queue_s: float = Field(
        default=0.0,
        ge=0,
        description="most predicted seconds of work in a pipeline's first queue before publishers wait; 0: no limit",
    )
    results_bytes: int = Field(default=2048 * MIB, ge=MIB, description="most bytes of results kept")
    results_age_s: float = Field(default=604800.0, gt=0, description="seconds that results are kept")
    rigs_age_s: float = Field(
        default=604800.0, gt=0, description="seconds that the status shows a rig that stopped or was lost"
    )
    dead_bytes: int = Field(default=256 * MIB, ge=MIB, description="most bytes of dead letters kept")
    ack_wait_s: float = Field(
        default=10.0, gt=0.2, description="seconds without progress after which another worker gets the message"
    )
    max_deliver: int = Field(default=4, ge=1, description="attempts that may fail before an item is a dead letter")
    work_deadline_s: float = Field(default=600.0, gt=0, description="most seconds one item may take in one attempt")
    max_pixels: int = Field(default=50_000_000, ge=1, description="most pixels of a picture of a media")
    max_windows: int = Field(default=5_000_000, ge=1, description="most windows that a pipeline may see in a media")
    max_duration_s: float = Field(default=86400.0, gt=0, description="most seconds that a video or a sound may last")
    prefetch_s: float = Field(
        default=0.03, ge=0, description="a worker fetches more when it has work for fewer seconds than this"
    )
    credit_items: int = Field(default=8, ge=1, description="most items a worker holds")
    credit_bytes: int = Field(default=64 * MIB, ge=MIB, description="most bytes of items a worker holds")
    worker_memory_bytes: int = Field(
        default=0, ge=0, description="most bytes of memory a worker may use, or it is started again; 0: no limit"
    )
    models_bytes: int = Field(
        default=4096 * MIB, ge=1, description="most bytes of models that a worker keeps loaded, as large as their files"
    )
    kv_bytes: int = Field(
        default=4096 * MIB,
        ge=1,
        description="most bytes of the keys and values that a language model keeps of the texts it works on",
    )
    models_disk_bytes: int = Field(
        default=32768 * MIB, ge=MIB, description="most bytes of models' files that a machine's workers keep on its disk"
    )
    stop_grace_s: float = Field(default=20.0, ge=0, description="seconds that a stopping worker may finish work")
    stop_hard_s: float = Field(default=5.0, gt=0, description="seconds more to return the rest; then it is killed")
    url_hosts: tuple[str, ...] = Field(
        default=(),
        description="hosts from which the gateway fetches media by URL, `,` between them; docs/gateway.md",
    )
    json_bytes: int = Field(default=32 * MIB, ge=1024, description="most bytes of JSON in a request to the gateway")
    hours: str = Field(
        default="",
        max_length=200,
        description="when workers take work, by the machine's clock, as `mon-fri 22:00-08:00, sat-sun`; empty: always",
    )
    canary_minutes: float = Field(
        default=10.0,
        ge=0,
        le=1440,
        description="minutes between the canaries by which workers find cards that answer wrongly; 0: none",
    )
    metrics: str = Field(default="127.0.0.1:9464", description="HOST:PORT of a rig's metrics and health; empty: none")
    log_format: LogFormat = Field(
        default=LogFormat.LOGFMT, description="lines of the log of a rig, worker or gateway: logfmt or json"
    )
    log_level: LogLevel = Field(default=LogLevel.INFO, description="least level in it: debug, info, warning or error")
    otlp: str = Field(
        default="", description="URL of an OpenTelemetry collector, http://HOST:4318, for traces; empty: none"
    )
    backend: str = Field(
        default="onnxruntime",
        pattern=r"^[A-Za-z0-9_-]+$",
        description="what runs models: onnxruntime, ncnn, tensorrt, tensorrt_rtx, or one of an installed package",
    )
    precision: Literal["auto", "fp32", "fp16", "int8"] = Field(
        default="auto",
        description="precision of engines; auto: what suits the GPU. fp16 allows it to ONNX Runtime, docs/profiles.md",
    )
    device: str = Field(
        default="cpu", pattern=DEVICE, description="what workers compute on: cpu, cuda:INDEX or cuda:UUID"
    )
    decoders: int = Field(default=16, ge=1, le=64, description="most segments that a GPU's worker decodes at a time")
    decoder: Literal["any", "gpu", "host"] = Field(
        default="any",
        description="what decodes for a GPU: `gpu`, `host`, or `any`: the host decodes what the GPU cannot",
    )
    encoder: Literal["host", "any", "gpu"] = Field(
        default="host",
        description="what encodes video for a GPU: `host`, `gpu`, or `any`: the host encodes what the GPU cannot",
    )
    tf32: bool = Field(default=False, description="whether GPUs may round float32 products to 10 bits, for speed")
    tuning_s: float = Field(
        default=30.0,
        ge=0,
        le=3600,
        description="most seconds that a GPU's worker tries options of a model that its kind of GPU did not; 0: none, "
        "and no GPU is measured again after a new driver",
    )
    cache: str = Field(default="", description="folder for models and engines; empty: the user's cache folder")

    @field_validator("hours")
    @classmethod
    def _are_hours(cls, value: str) -> str:
        Hours.parse(value)
        return value

    @field_validator("shared", mode="before")
    @classmethod
    def _folders(cls, value: object) -> object:
        return tuple(filter(None, value.split(":"))) if isinstance(value, str) else value

    @field_validator("url_hosts", "trusted_signers", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return tuple(filter(None, re.split(r"[,\s]+", value))) if isinstance(value, str) else value

    @field_validator("trusted_signers")
    @classmethod
    def _are_public_keys(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [each for each in value if not re.fullmatch(r"U[A-Z2-7]{55}", each)]:
            raise ValueError(f"has {wrong[0][:8]}..., which is no public nkey of a user, U and 55 letters and digits")
        return value

    @field_validator("url_hosts")
    @classmethod
    def _are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        value = tuple(each.lower() for each in value)
        if wrong := [each for each in value if not re.fullmatch(HOSTS, each)]:
            raise ValueError(f"has {wrong[0][:100]}, which is none of a.example, a.example:8080, *.a.example and *")
        return value

    @field_validator("shared")
    @classmethod
    def _absolute(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(folder.startswith("/") for folder in value):
            raise ValueError("needs absolute paths")
        return value

    @property
    def cache_folder(self) -> Path:
        """The folder for files of models, engines and rigs on this machine."""
        return Path(self.cache) if self.cache else home_folder() / ".cache" / "rigflow"


def load_settings(given: Mapping[str, Any], environment: Mapping[str, str], file: Path | None = None) -> Settings:
    """Settings from what the command line gave, the environment and a TOML file. Raises UsageError, by field."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if file is not None:
        try:
            values |= parse_toml(file.read_bytes())
            origins |= dict.fromkeys(values, f"in {file}")
        except OSError as error:
            raise UsageError(f"settings file {file}: {error.strerror}", "check the path") from error
        except TomlError as error:
            raise UsageError(f"settings file {file}: not TOML, {error}", "see docs/settings.md") from error
    for variable, value in environment.items():
        if variable.startswith("RIGFLOW_"):
            key = variable.removeprefix("RIGFLOW_").lower()
            values[key], origins[key] = value, f"in the environment variable {variable}"
    for key, value in given.items():
        if value is not None:
            values[key], origins[key] = value, f"in the option --{key}"
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = origins.get(str(first["loc"][0]), "")
        hint = hint_of(first, Settings, "see docs/settings.md")
        raise UsageError(f"setting {format_field_error(first)} ({where})", hint) from error
