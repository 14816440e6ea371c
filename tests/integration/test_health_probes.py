"""Which parts `referral check` asks."""

from pathlib import Path

import pytest

from referral.adapters.observability import tracing
from referral.container import make_container
from referral.core.use_cases.health import CheckParts
from referral.settings import Settings


@pytest.mark.parametrize("traced", [False, True])
async def test_an_smtp_server_is_asked_with_traces_or_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, traced: bool
) -> None:
    """A span around each mail does not hide the server from the check."""
    monkeypatch.setattr(tracing, "is_enabled", lambda: traced)
    smtp_url = "smtp://127.0.0.1:1"
    container = make_container(Settings(data_dir=tmp_path, smtp_url=smtp_url))
    parts = (await container.get(CheckParts)).parts
    assert [part.name for part in parts] == ["database", "smtp"]
    await container.close()


async def test_files_of_mail_are_not_asked(tmp_path: Path) -> None:
    """There is nobody to ask."""
    container = make_container(Settings(data_dir=tmp_path))
    parts = (await container.get(CheckParts)).parts
    assert [part.name for part in parts] == ["database"]
    await container.close()
