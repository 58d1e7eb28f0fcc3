"""The commands of the pages about a fleet of several machines as a script of a shell, for one machine."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
SERVERS = ("rigflow broker", "rigflow rig", "rigflow gateway")  # which run until they are stopped


def commands(page: str, heading: str) -> list[str]:
    """The commands of the console blocks under a heading of a page, without comments."""
    text = (DOCS / page).read_text()
    section = re.split(rf"^#+ {re.escape(heading)}$", text, maxsplit=1, flags=re.MULTILINE)[1]
    section = re.split(r"^## ", section, maxsplit=1, flags=re.MULTILINE)[0]
    blocks = re.findall(r"^```console\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    return [re.sub(r"\s+#.*$", "", line[2:]) for block in blocks for line in block.splitlines() if line[:2] == "$ "]


def is_server(command: str) -> bool:
    """Whether a command runs until it is stopped."""
    words = re.sub(r"^(\w+=\S+ )*", "", command)
    return words.startswith(SERVERS) and "--signal" not in words
