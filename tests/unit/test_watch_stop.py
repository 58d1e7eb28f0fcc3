"""What `rigflow watch` says when it is stopped."""

import asyncio
import os
import signal

import pytest

from cli.watch import _until_stopped


@pytest.mark.parametrize("has_work", [False, True])
def test_files_are_begun_again_only_where_some_are_not_done(has_work: bool, capsys: pytest.CaptureFixture[str]) -> None:
    async def stopped() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    asyncio.run(_until_stopped(stopped(), lambda: has_work))
    said = capsys.readouterr().err
    assert said.startswith("rigflow: stopping")
    assert ("begun again at the next start" in said) is has_work
