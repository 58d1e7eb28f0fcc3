"""Requests that schemathesis makes of the gateway's own description: none may answer what it does not describe."""

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("schemathesis")
