"""Requests that schemathesis makes of the gateway's own description: none may answer what it does not describe."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("schemathesis")

from tests.fleet import ONE_WORKER, Fleet  # noqa: E402
from tests.gateway import Gateway  # noqa: E402
from workers.definitions import register_builtin  # noqa: E402
