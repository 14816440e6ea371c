"""The dependencies that `referral check` probes."""

from pathlib import Path

import pytest

from referral.adapters.observability import tracing
from referral.container import make_container
from referral.core.use_cases.health import CheckComponents
from referral.settings import Settings


@pytest.mark.parametrize("traced", [False, True])
async def test_smtp_server_is_probed_with_and_without_tracing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, traced: bool
) -> None:
    """The wrapper that traces e-mails does not hide the SMTP server from the check."""
    monkeypatch.setattr(tracing, "is_enabled", lambda: traced)
    smtp_url = "smtp://127.0.0.1:1"
    container = make_container(Settings(data_dir=tmp_path, smtp_url=smtp_url))
    probes = (await container.get(CheckComponents)).probes
    assert [probe.name for probe in probes] == ["database", "smtp"]
    await container.close()


async def test_mail_files_are_not_probed(tmp_path: Path) -> None:
    """Without an SMTP server only the database is probed."""
    container = make_container(Settings(data_dir=tmp_path))
    probes = (await container.get(CheckComponents)).probes
    assert [probe.name for probe in probes] == ["database"]
    await container.close()
