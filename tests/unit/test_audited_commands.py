"""Each command either changes nothing of a fleet by a person's will, or has an entry in the audit log."""

import ast
from collections.abc import Iterator
from pathlib import Path

import typer.main
from click import Command

from cli.app import app

ROOT = Path(__file__).parents[2]
LOOKS = """
    help doctor status near cluster search usage audit plan simulate selftest jobs-list jobs-show jobs-wait
    pipelines-list pipelines-show pipelines-check model-list model-show model-test dead-list dead-show engine-list
    engine-bench engine-check engine-show topology-plan topology-roles tenants-list keys-api-list keys-join-list cards
    backup results
"""  # `results` forgets what it has fetched
HERE = """
    bundle model-add model-remove model-label engine-build engine-pull engine-export
    keys-nats
"""  # files of this machine
RUNS = "worker rig up broker gateway"  # processes; what a person has them do is in the log as an action of that
SUBMITS = "run publish watch"  # jobs, which `rigflow usage` has, and pipelines
CHANGES = {
    "pipelines-withdraw": "pipeline-removed",
    "jobs-cancel": "job-cancelled",
    "jobs-delete": "job-deleted",
    "dead-retry": "dead-letter-retried",
    "dead-drop": "dead-letter-dropped",
    "topology-apply": "topology-applied",
    "topology-sweep": "leftovers-swept",
    "tenants-add": "tenants-listed",
    "tenants-limit": "tenants-listed",
    "tenants-remove": "tenants-listed",
    "keys-api-add": "api-key-made",
    "keys-api-revoke": "api-key-revoked",
    "keys-join-add": "join-token-made",
    "keys-join-revoke": "join-token-revoked",
    "cards-quarantine": "card-quarantined",
    "cards-readmit": "card-readmitted",
    "rig-cordon": "-ordered",
    "rig-resume": "-ordered",
    "rig-drain": "-ordered",
    "rig-forget": "rig-forgotten",
    "worker-cordon": "-ordered",
    "worker-resume": "-ordered",
    "worker-drain": "-ordered",
    "engine-push": "engine-pushed",
    "profile": "profile-shared",
    "restore": "streams-restored",
}
BY_OTHERS = {"model-published", "model-removed", "pipeline-published"}  # the gateway's, and of `SUBMITS`


def commands(group: Command, words: tuple[str, ...] = ()) -> Iterator[str]:
    found = getattr(group, "commands", None)
    if not found or getattr(group, "invoke_without_command", False):
        yield "-".join(words)
    for name, each in (found or {}).items():
        yield from commands(each, (*words, name))


def actions() -> set[str]:
    """The first words of all calls of `audit`; of a formatted one its last literal."""
    found: set[str] = set()
    for path in (each for room in ("cli", "pipelines", "gateway", "workers") for each in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "audit" and node.args:
                literals = [each.value for each in ast.walk(node.args[1]) if isinstance(each, ast.Constant)]
                found |= {str(literals[-1])} if literals else set()
    return found


def test_each_command_is_known_to_change_nothing_or_has_an_entry() -> None:
    others = set(f"{LOOKS} {HERE} {RUNS} {SUBMITS}".split())
    known = set(commands(typer.main.get_command(app)))
    assert known - others - CHANGES.keys() == set(), "is it audited?"
    assert (others | CHANGES.keys()) - known == set()


def test_each_action_of_the_log_is_of_a_command_or_of_the_gateway() -> None:
    assert actions() == {*CHANGES.values(), *BY_OTHERS}
