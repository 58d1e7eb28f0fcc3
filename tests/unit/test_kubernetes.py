"""deploy/kubernetes against the schemas of Kubernetes, and against the commands, settings and streams of rigflow."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import nkeys
import promql_parser
import pytest
import yaml

from pipelines.child import nats_server_binary, tied_to_us
from pipelines.registry import builtin_pipeline, builtin_pipelines
from pipelines.streams import desired
from schemas.settings import Settings
from schemas.subjects import Names
from tests.cli import rigflow
from tests.unit.test_deploy import known, selectors, until

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
FILES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
VERSION = "1.33"
KINDS = ("Deployment", "DaemonSet", "StatefulSet", "Job")


@cache
def objects() -> tuple[dict[str, Any], ...]:
    return tuple(each for file in FILES for each in yaml.safe_load_all(file.read_text()))


def pods() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name of a workload, its pod's spec, and the one container of it."""
    for each in objects():
        if each["kind"] in KINDS:
            spec = each["spec"]["template"]["spec"]
            [container] = spec["containers"]
            yield each["metadata"]["name"], spec, container


def kustomization(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "kustomization.yaml").read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize("each", objects(), ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_an_object_fits_its_schema(each: dict[str, Any]) -> None:
    kubernetes_validate.validate(each, VERSION, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**each, "spek": {}}, VERSION, strict=True)


def test_every_file_is_in_the_kustomization_and_every_name_in_it_is_a_file() -> None:
    given = kustomization(DEPLOY)
    assert sorted(given["resources"]) == [f"kubernetes/{file.name}" for file in FILES]
    made = [name for each in given["configMapGenerator"] for name in each.get("files", [])]
    assert all((DEPLOY / name).is_file() for name in made)
    assert {"cluster.conf", "roles.conf", "nats.conf"} == {Path(name).name for name in made}
    names = {each["metadata"]["name"] for each in objects()} | {each["name"] for each in given["configMapGenerator"]}
    asked = re.findall(r"configMap(?:Ref)?: \{ name: ([\w-]+) \}", "".join(file.read_text() for file in FILES))
    assert set(asked) <= names
    keda = kustomization(DEPLOY / "kubernetes" / "keda")
    assert all((DEPLOY / "kubernetes" / "keda" / name).is_file() for name in keda["resources"])


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl has kustomize")
def test_kustomize_makes_objects_that_fit_their_schemas() -> None:
    words = ["kubectl", "kustomize", str(DEPLOY)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if "kustomize" not in done.stderr and done.returncode and not done.stdout:
        pytest.skip(f"this kubectl does not run: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    made = list(yaml.safe_load_all(done.stdout))
    assert len(made) == len(objects()) + 2, "and two config maps"
    for each in made:
        kubernetes_validate.validate(each, VERSION, strict=True)
        assert each["kind"] == "Namespace" or each["metadata"]["namespace"] == "rigflow"


def test_every_pod_keeps_to_the_restricted_standard() -> None:
    [namespace] = [each for each in objects() if each["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, spec, container in pods():
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        own = container["securityContext"]
        assert own["capabilities"] == {"drop": ["ALL"]}, name
        assert (own["allowPrivilegeEscalation"], own["readOnlyRootFilesystem"]) == (False, True), name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert "memory" in container["resources"]["limits"], name
        assert not any("hostPath" in volume for volume in spec["volumes"]), name
        mounted = {each["name"] for each in container["volumeMounts"]}
        claims = {"data"} if name == "broker" else set()
        assert mounted == {each["name"] for each in spec["volumes"]} | claims, name


def test_every_service_has_three_probes_of_a_port_it_has() -> None:
    for name, _, container in pods():
        if name == "topology":
            continue
        ports = {each["name"] for each in container["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            get = container[probe]["httpGet"]
            assert get["port"] in ports, (name, probe)
            assert get["path"].split("?")[0] in ("/livez", "/readyz", "/healthz"), (name, probe)


def test_secrets_are_named_and_never_written(tmp_path: Path) -> None:
    asked = set()
    for _, spec, container in pods():
        asked |= {each["secret"]["secretName"] for each in spec["volumes"] if "secret" in each}
        asked |= {each["secretRef"]["name"] for each in container.get("envFrom", []) if "secretRef" in each}
    assert asked == {"rigflow-broker", "rigflow-operator", "rigflow-worker", "rigflow-gateway"}
    assert not [each for each in objects() if each["kind"] == "Secret"]
    document = (ROOT / "docs" / "install.md").read_text()
    assert all(f"secret generic {name} " in document for name in asked)
    keys = set(re.findall(r"\$(NKEY_\w+)", (DEPLOY / "nats" / "roles.conf").read_text()))
    assert all(key in document for key in keys)


def test_commands_and_settings_exist() -> None:
    literals = [each for each in kustomization(DEPLOY)["configMapGenerator"] if "literals" in each]
    given = {word.split("=")[0] for each in literals for word in each["literals"]}
    for name, _, container in pods():
        given |= {each["name"] for each in container.get("env", []) if each["name"].startswith("RIGFLOW_")}
        if words := container.get("args"):
            reported = rigflow(words[0], *(["apply"] if words[0] == "topology" else []), "--help")
            assert reported.returncode == 0, (name, reported.stderr)
            assert all(word in reported.stdout for word in words if word.startswith("--")), name
    assert all(each.removeprefix("RIGFLOW_").lower() in Settings.model_fields for each in given)


def test_a_disruption_leaves_enough() -> None:
    budgets = {each["metadata"]["name"]: each["spec"] for each in objects() if each["kind"] == "PodDisruptionBudget"}
    assert budgets["broker"]["maxUnavailable"] == 1
    labels = [each["spec"]["template"]["metadata"]["labels"] for each in objects() if each["kind"] in KINDS]
    for name, budget in budgets.items():
        assert budget["selector"]["matchLabels"].items() <= next(
            found.items() for found in labels if found["app.kubernetes.io/name"] == name
        )


def test_only_clients_of_the_broker_reach_it() -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in objects() if each["kind"] == "NetworkPolicy"}
    assert policies["nobody"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    clients = {
        each["metadata"]["name"]
        for each in objects()
        if each["kind"] in KINDS and each["spec"]["template"]["metadata"]["labels"].get("rigflow/broker") == "client"
    }
    assert clients == {"rig-cpu", "rig-gpu", "gateway", "topology"}
    assert {rule["port"] for each in policies["broker"]["ingress"] for rule in each["ports"]} == {4222, 6222, 8222}


def test_what_keda_asks_for_is_there() -> None:
    [scaled] = yaml.safe_load_all((DEPLOY / "kubernetes" / "keda" / "scaled.yaml").read_text())
    target = scaled["spec"]["scaleTargetRef"]["name"]
    assert target in {each["metadata"]["name"] for each in objects() if each["kind"] == "Deployment"}
    specs = [builtin_pipeline(name) for name in builtin_pipelines()]
    streams = {
        plan.name: {each["durable_name"] for each in plan.consumers} for plan in desired(Names(), Settings(), specs)
    }
    queues = [each["metadata"] for each in scaled["spec"]["triggers"] if each["type"] == "nats-jetstream"]
    assert {(each["stream"], each["consumer"]) for each in queues} == {
        (stream, consumer)
        for stream in ("RIGFLOW_WORK_scenes_decode", "RIGFLOW_MEDIA_scenes")
        for consumer in ("interactive", "bulk")
    }, "whatever waits there wakes a rig"
    kinds = [trigger["type"] for trigger in scaled["spec"]["triggers"]]
    assert set(kinds) == {"nats-jetstream", "prometheus"}
    for trigger in scaled["spec"]["triggers"]:
        asked = trigger["metadata"]
        assert all(isinstance(value, str) for value in asked.values())
        if trigger["type"] == "nats-jetstream":
            assert asked["consumer"] in streams[asked["stream"]]
            assert f"\n  {asked['account']} {{\n" in (DEPLOY / "nats" / "roles.conf").read_text()
        else:
            [selector] = selectors(promql_parser.parse(asked["query"]))
            assert {"pipeline", "stage"} <= known()[selector.name]


def test_the_brokers_configuration_has_roles_and_answers_probes(tmp_path: Path) -> None:
    for file in (DEPLOY / "kubernetes" / "nats.conf", *(DEPLOY / "nats").glob("*.conf")):
        text = re.sub(r":(4222|6222|8222)\b", ":-1", file.read_text())
        (tmp_path / file.name).write_text(text)
    given = {"POD_NAME": "broker-0", "NATS_ROUTES": "[nats://127.0.0.1:1]"}
    for key in set(re.findall(r"\$(NKEY_\w+)", (DEPLOY / "nats" / "roles.conf").read_text())):
        seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
        given[key] = nkeys.from_seed(bytearray(seed)).public_key.decode()
    log = tmp_path / "log"
    words = [nats_server_binary(), "-c", str(tmp_path / "nats.conf"), "--store_dir", str(tmp_path / "store")]
    process = subprocess.Popen(tied_to_us([*words, "-l", str(log)]), env=os.environ | given)
    try:
        until(log, "Starting http monitor on 0.0.0.0:")
        until(log, "broker-0")
        until(log, "Cluster name is rigflow")
    finally:
        process.kill()
        process.wait()
