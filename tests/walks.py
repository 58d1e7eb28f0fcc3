"""The commands of a page of the documents, in their order, as a person types them."""

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
TOOLS = Path(sys.executable).parent
SERVES = re.compile(r"\brigflow (up|rig|gateway|watch|broker) ")
READY = "is up on|Server is ready|serves http|event=ready|watches"  # what each of them says when it serves
HEAD = f"""set -eo pipefail
trap 'trap - EXIT; kill -9 $(jobs -p) 2>/dev/null || true' EXIT
ready() {{  # waits until the process in the background says that it serves; its output is in the file $1
  until grep -qE "{READY}" "$1"; do kill -0 $! || {{ cat "$1"; exit 1; }}; sleep 0.05; done
}}
"""


def blocks(text: str, *fences: str) -> list[tuple[str, str]]:
    """The fence and the text of each block of commands, in order."""
    return re.findall(rf"^```({'|'.join(fences or ('console', 'bash'))})\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def typed(block: str) -> list[str]:
    """The commands of a block `console`; a line that ends with a backslash goes on in the next."""
    return [re.sub(r"\s+# .*$", "", each) for each in re.findall(r"^\$ ((?:.*\\\n)*.*)$", block, re.MULTILINE)]


def free_port() -> int:
    """A port of the loopback that no program has."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def rewritten(text: str, rewrite: Mapping[str, str]) -> str:
    """The text with each of these patterns replaced."""
    for pattern, new in rewrite.items():
        text = re.sub(pattern, new, text)
    return text


def sections(text: str) -> list[str]:
    """The parts of a page between its headings of the second level."""
    return re.split(r"^## ", text, flags=re.MULTILINE)


def script(text: str, folder: Path, rewrite: Mapping[str, str]) -> str:
    """A program of bash of a page's commands; patterns of `rewrite` are replaced in each.

    A command that serves runs in the background from when it is ready until the section ends. What a command prints
    is also in a file `N.out` of the folder.
    """
    lines, number = [HEAD], 0
    for section in sections(text):
        for fence, block in blocks(section):
            for command in typed(block) if fence == "console" else [block.rstrip()]:
                number += 1
                command = rewritten(command, rewrite)
                out = f"{folder}/{number}.out"
                lines.append(f"echo {shlex.quote('== ' + command.splitlines()[0])}")
                if SERVES.search(command + " "):
                    lines.append(f": > {out}\n{command} > {out} 2>&1 &\nready {out}")
                elif "\n" in command or re.match(r"(export|cd|\.) ", command):
                    lines.append(command)
                else:
                    lines.append(f"{command} 2>&1 | tee {out}")
        lines.append("kill -TERM $(jobs -p) 2>/dev/null || true; wait")
    return "\n".join(lines) + "\n"


def walk(text: str, folder: Path, rewrite: Mapping[str, str], **environment: str) -> str:
    """Run the commands of a page in a folder, which is also the home; returns what they print.

    A block of TOML that begins with a file's name, as `# night.toml`, is that file.
    """
    for _, block in blocks(text, "toml"):
        if name := re.match(r"# ([\w-]+\.toml)\n", block):
            (folder / name[1]).write_text(rewritten(block, rewrite))
    (folder / "walk.sh").write_text(script(text, folder, rewrite))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RIGFLOW_")}
    given = kept | {"PATH": f"{TOOLS}:{kept['PATH']}", "HOME": str(folder), "COLUMNS": "120"} | environment
    ran = subprocess.run(
        ["bash", "walk.sh"],
        cwd=folder,
        env=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout
