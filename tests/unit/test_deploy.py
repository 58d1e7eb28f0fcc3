"""compose.yaml and deploy/, as far as that can be checked without a container engine: no image is built or started."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nkeys
import promql_parser
import pytest
import yaml

from pipelines.child import MEMORY_BYTES, nats_server_binary, tied_to_us
from schemas.settings import Settings
from tests.cli import rigflow
from tests.unit.test_metrics import snapshot
from workers.metrics import families

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = ROOT / "compose.yaml"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").iterdir())
SCRAPED = {"job", "instance", "le"}  # labels that are not ours
TOOLS = Path(sys.executable).parent


def compose() -> dict[str, Any]:
    """The compose file with anchors resolved."""
    return yaml.safe_load(COMPOSE.read_text())  # type: ignore[no-any-return]


def command(*words: str | Path, **environment: str) -> None:
    """Run a checker; what it says is the failure."""
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, env=os.environ | environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_compose_file_is_one() -> None:
    command(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_what_the_compose_file_mounts_and_waits_for_exists() -> None:
    file = compose()
    for name, service in file["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in file["volumes"], (name, volume)
        for other in service.get("depends_on", []):
            assert other in file["services"], (name, other)
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), "open to others by default"


def test_the_cluster_is_three_nodes_with_one_configuration() -> None:
    services = compose()["services"]
    nodes = {name: service for name, service in services.items() if name.startswith("nats-")}
    assert set(nodes) == {"nats-1", "nats-2", "nats-3"}
    assert [name for name, node in nodes.items() if "cluster" not in node.get("profiles", [])] == ["nats-1"]
    given = dict(
        line.split("=", 1) for line in (DEPLOY / "cluster.env").read_text().splitlines() if line and line[0] != "#"
    )
    used = set(re.findall(r"\$\{(\w+):-", COMPOSE.read_text()))
    assert set(given) == used | {"COMPOSE_PROFILES"}
    for name, node in nodes.items():
        assert node["command"][node["command"].index("--name") + 1] == name
        assert f"{name}:6222" in node["environment"]["NATS_ROUTES"]
        assert f"{name}:4222" in given["RIGFLOW_NATS"]


def test_settings_and_commands_of_the_rigs_exist() -> None:
    services = compose()["services"]
    for name in ("rig", "rig-gpu", "topology", "gateway"):
        for variable in services[name]["environment"]:
            assert variable.removeprefix("RIGFLOW_").lower() in Settings.model_fields, variable
        words = services[name]["command"]
        reported = rigflow(*[word for word in words[:2] if word.isalpha()], "--help")
        assert reported.returncode == 0, reported.stderr
        assert all(word in reported.stdout for word in words if word.startswith("--"))


def test_the_gpu_rig_has_the_device_and_its_memory() -> None:
    rig = compose()["services"]["rig-gpu"]
    assert rig["profiles"] == ["gpu"]
    [device] = rig["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert {"gpu", "compute", "video", "utility"} <= set(device["capabilities"])
    assert rig["shm_size"]


@pytest.mark.skipif(not (TOOLS / "hadolint").exists(), reason="hadolint comes for Linux only")
def test_the_dockerfile_is_clean_and_needs_no_root() -> None:
    command(TOOLS / "hadolint", DEPLOY / "Dockerfile")
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    assert [line.split()[1] for line in lines if line.startswith("USER")][-1] not in ("root", "0")
    copied = {line.split()[1] for line in lines if re.match(r"COPY \w+ \w+$", line)}
    assert copied == {"schemas", "placement", "engines", "pipelines", "workers", "gateway", "cli"}
    admitted = (ROOT / ".dockerignore").read_text().splitlines()
    assert all(f"!{folder}" in admitted for folder in copied)


@pytest.mark.parametrize("name", ["single", "cluster"])
@pytest.mark.parametrize("with_roles", [False, True], ids=["open", "roles"])
def test_the_broker_takes_its_configuration(name: str, with_roles: bool, tmp_path: Path) -> None:
    for file in (DEPLOY / "nats").iterdir():
        text = file.read_text()
        (tmp_path / file.name).write_text(text.replace("# include", "include") if with_roles else text)
    keys = {}
    for role in ("OPERATOR", "WORKER", "PUBLISHER", "GATEWAY", "CLIENT", "JOIN"):
        seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
        keys[f"NKEY_{role}"] = nkeys.from_seed(bytearray(seed)).public_key.decode()
    command(
        nats_server_binary(),
        "-t",
        "-c",
        tmp_path / f"{name}.conf",
        NATS_ROUTES="[nats://a:6222, nats://b:6222]",
        **keys,
    )


# metrics


def known() -> dict[str, set[str]]:
    """Name of every series that a rig gives -> its labels."""
    series: dict[str, set[str]] = {"up": set()}
    for family in families(snapshot()):
        for sample in family.samples:
            series.setdefault(sample.name, set()).update(sample.labels)
    return series


def queries() -> Iterator[tuple[str, str]]:
    """Where a query stands, and the query: of alerts, of the dashboards, of docs/metrics.md."""
    for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for dashboard in DASHBOARDS:
        for panel in json.loads(dashboard.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{dashboard.stem}, {panel['title']}", target["expr"]
    block = (ROOT / "docs" / "metrics.md").read_text().split("```promql\n")[1].split("```")[0]
    for line in block.splitlines():
        yield "docs/metrics.md", line.split("#")[0]


def selectors(node: Any) -> Iterator[Any]:
    """Every selector of series in a parsed query."""
    if hasattr(node, "matchers"):
        yield node
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        child = getattr(node, name, None)
        if child is not None:
            yield from selectors(child)
    for child in getattr(node, "args", None) or []:
        yield from selectors(child)


def test_every_metric_that_is_asked_for_exists() -> None:
    series = known()
    asked: set[str] = set()
    for where, query in queries():
        parsed = promql_parser.parse(re.sub(r"\$(pipeline|tenant|rig)\b", ".*", query))
        found = list(selectors(parsed))
        assert found, (where, query)
        labels: set[str] = set()
        for selector in found:
            assert selector.name in series, f"{where}: no rig has {selector.name}"
            labels |= series[selector.name]
            for matcher in selector.matchers.matchers:
                assert matcher.name in series[selector.name] | SCRAPED, (
                    f"{where}: {selector.name} has no {matcher.name}"
                )
            asked.add(selector.name)
        for grouping in re.findall(r"by \(([^)]*)\)", query):
            assert {label.strip() for label in grouping.split(",")} <= labels | SCRAPED, (where, query)
    unseen = {name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") for name in series}
    unseen -= {name.removesuffix("_bucket").removesuffix("_sum") for name in asked}
    assert not {name for name in unseen if not name.endswith("_created")}, "nothing shows these"


def test_every_alert_has_a_severity_and_a_runbook_that_is_there() -> None:
    [group] = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    operations = (ROOT / "docs" / "operations.md").read_text()
    section = operations.split("## Alerts\n")[1].split("\n## ")[0]
    assert re.findall(r"^### (\w+)$", section, re.MULTILINE) == [rule["alert"] for rule in group["rules"]]
    for rule in group["rules"]:
        assert rule["labels"]["severity"] in ("critical", "warning"), rule["alert"]
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["action"]


def test_there_is_a_dashboard_for_the_fleet_pipelines_and_tenants() -> None:
    assert [path.stem for path in DASHBOARDS] == ["fleet", "pipeline", "tenant"]
    home = compose()["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).name in {path.name for path in DASHBOARDS}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_whole(path: Path) -> None:
    dashboard = json.loads(path.read_text())
    assert dashboard["uid"] == f"rigflow-{path.stem}"
    for variable in dashboard["templating"]["list"]:
        name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]).groups()  # type: ignore[union-attr]
        assert label in known()[name] | SCRAPED
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"][0]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["datasource"]["uid"] == source["uid"]
        assert panel["title"]
        assert panel["description"]
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies over another panel"
        assert max(x for x, _ in cells) < 24
        taken |= cells
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/rigflow.yaml").read_text())["providers"][0]
    folder = provider["options"]["path"]
    mounts = [volume.split(":") for volume in compose()["services"]["grafana"]["volumes"]]
    assert [source for source, target, *_ in mounts if target == folder] == ["./deploy/grafana/dashboards"]


def test_prometheus_finds_every_rig() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    [job] = config["scrape_configs"]
    services = compose()["services"]
    [found] = job["dns_sd_configs"]
    assert set(found["names"]) == {name for name in services if name.startswith("rig")}
    for name in found["names"]:
        assert services[name]["command"][-1].endswith(f":{found['port']}")


ALERTS_TEST = """
rule_files: [{rules}]
evaluation_interval: 15s
tests:
  - interval: 15s
    input_series:
      - {{series: 'up{{job="rigflow",instance="a"}}', values: '1x40'}}
      - {{series: 'rigflow_broker_up{{job="rigflow",instance="a"}}', values: '1x8 0x31'}}
      - {{series: 'rigflow_dead_letters{{job="rigflow",instance="a"}}', values: '0x8 stale _x31'}}
    alert_rule_test:
      - {{eval_time: 1m, alertname: BrokerAway, exp_alerts: []}}
      - eval_time: 8m
        alertname: BrokerAway
        exp_alerts:
          - exp_labels: {{severity: critical}}
            exp_annotations:
              summary: rigs run, and none has reached the broker for a minute
              action: publishers and rigs wait and lose nothing; start the broker again on its store
              runbook: docs/operations.md#brokeraway
      - {{eval_time: 8m, alertname: RigGone, exp_alerts: []}}
      - {{eval_time: 8m, alertname: DeadLetters, exp_alerts: []}}
"""


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Prometheus")
def test_prometheus_takes_its_configuration_and_alerts_when_the_broker_is_away(tmp_path: Path) -> None:
    command("promtool", "check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    test = tmp_path / "alerts_test.yml"
    test.write_text(ALERTS_TEST.format(rules=DEPLOY / "prometheus" / "alerts.yml"))
    command("promtool", "test", "rules", test)


def test_every_broker_limits_what_it_keeps_of_files() -> None:
    unit = (DEPLOY / "systemd" / "rigflow-broker.service").read_text()
    limit = f"{MEMORY_BYTES >> 20}MiB"
    assert f"\nEnvironment=GOMEMLIMIT={limit}\n" in unit
    brokers = [each for name, each in compose()["services"].items() if name.startswith("nats-")]
    assert [each["environment"]["GOMEMLIMIT"] for each in brokers] == [limit] * 3


def test_the_unit_of_the_broker_reads_its_configuration_again(tmp_path: Path) -> None:
    unit = (DEPLOY / "systemd" / "rigflow-broker.service").read_text()
    [words] = [line.split()[1:] for line in unit.splitlines() if line.startswith("ExecStart=")]
    config = (DEPLOY / "nats" / "single.conf").read_text()
    (tmp_path / "nats.conf").write_text(config.replace(":4222", ":-1").replace(":8222", ":-1"))
    given = {"/etc/rigflow/nats.conf": str(tmp_path / "nats.conf"), "/var/lib/rigflow/nats": str(tmp_path / "store")}
    log = tmp_path / "log"
    arguments = [given.get(word, word) for word in words]
    process = subprocess.Popen(tied_to_us([nats_server_binary(), *arguments, "-l", str(log)]))
    try:
        until(log, "Server is ready")
        assert "kill -HUP $MAINPID" in unit
        process.send_signal(signal.SIGHUP)
        until(log, "Reloaded server configuration")
    finally:
        process.kill()
        process.wait()


def until(log: Path, text: str) -> None:
    deadline = time.monotonic() + 60
    while not (log.exists() and text in log.read_text()):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
