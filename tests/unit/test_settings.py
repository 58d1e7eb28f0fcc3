"""Settings: their order, their errors, and the table in docs/settings.md."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.errors import UsageError
from schemas.settings import MIB, Settings, load_settings

DOCS = Path(__file__).parents[2] / "docs"


def table() -> str:
    """The table of all settings as docs/settings.md has it."""
    rows = ["| setting | environment | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = field.default
        if name.endswith("_bytes"):
            shown = f"{default} ({default // MIB} MiB)"
        else:
            shown = f"{default:g}" if isinstance(default, float) else str(default)
            shown = shown.lower() if isinstance(default, bool) else shown
            shown = ":".join(default) if isinstance(default, tuple) else shown
        rows.append(f"| `{name}` | `RIGFLOW_{name.upper()}` | {shown} | {field.description} |")
    return "\n".join(rows)


def test_the_table_in_the_docs_is_the_class() -> None:
    text = (DOCS / "settings.md").read_text()
    assert table() in text, f"put this table into docs/settings.md:\n{table()}"


def test_given_goes_over_environment_over_file_over_default(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('port = 1\ntenant = "file"\nprefix = "file"\n')
    settings = load_settings(
        {"port": 3, "nats": None}, {"RIGFLOW_PORT": "2", "RIGFLOW_TENANT": "env", "HOME": "/"}, file
    )
    assert (settings.port, settings.tenant, settings.prefix, settings.max_deliver) == (3, "env", "file", 4)


@pytest.mark.parametrize(
    ("given", "environment", "output"),
    [
        (
            {},
            {"RIGFLOW_PORT": "many"},
            "setting port: should be a valid integer",
        ),
        ({}, {"RIGFLOW_PRTO": "1"}, "setting prto: unknown field (in the environment variable RIGFLOW_PRTO)"),
        ({"port": 70_000}, {}, "setting port: should be less than or equal to 65535 (in the option --port)"),
        ({"prefix": "a.b"}, {}, "setting prefix: string should match pattern"),
    ],
)
def test_a_wrong_setting_is_named(given: dict[str, object], environment: dict[str, str], output: str) -> None:
    with pytest.raises(UsageError) as raised:
        load_settings(given, environment)
    assert str(raised.value).startswith(output)
    assert str(raised.value).endswith("see docs/settings.md")


def test_a_wrong_setting_says_which_variable_it_is() -> None:
    with pytest.raises(UsageError, match=r"\(in the environment variable RIGFLOW_PORT\): see docs"):
        load_settings({}, {"RIGFLOW_PORT": "many"})


def test_a_wrong_setting_of_a_file_is_named_with_its_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("port = -1\n")
    with pytest.raises(UsageError, match=rf"setting port: should be greater .* \(in {file}\)"):
        load_settings({}, {"RIGFLOW_TENANT": "main"}, file)


def test_a_settings_file_that_cannot_be_read_or_is_not_toml(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load_settings({}, {}, tmp_path / "none.toml")
    (tmp_path / "odd.toml").write_text("port =\n")
    with pytest.raises(UsageError, match="not TOML"):
        load_settings({}, {}, tmp_path / "odd.toml")


def test_tests_and_what_they_start_do_not_see_the_settings_of_a_shell() -> None:
    shown = "import os, tests.conftest; print([name for name in os.environ if name.startswith('RIGFLOW_')])"
    shell = os.environ | {"RIGFLOW_NATS": "nats://fleet:4222", "RIGFLOW_PORT": "1", "RIGFLOW_TEST_SEED": "7"}
    ran = subprocess.run([sys.executable, "-c", shown], env=shell, capture_output=True, text=True, check=True)
    assert ran.stdout == "['RIGFLOW_TEST_SEED']\n"
