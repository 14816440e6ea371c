"""kill -9 of the worker around SMTP's final 250, and of the API right after its response."""

from pathlib import Path

import httpx
import pytest

from referral.settings import Settings
from tests.faults.worker_kills import BACKLOG, kill_workers
from tests.support.api_client import new_email, register
from tests.support.service_process import running_service
from tests.support.smtp_sink import SmtpSink
from tests.support.waiting import wait_until


@pytest.mark.parametrize(("kills", "backlog"), [(8, 1), (4, BACKLOG)])
async def test_killed_workers_lose_no_mail(
    settings: Settings, sink: SmtpSink, kills: int, backlog: int
) -> None:
    """E-mails in flight may be sent twice, with one Message-ID; the backlog does not matter."""
    outcome = await kill_workers(settings, sink, kills, backlog)
    assert outcome.is_as_promised, outcome
    assert outcome.kills == kills
    assert outcome.mails >= max(kills, backlog)


async def test_mail_is_sent_after_a_kill_of_the_api(tmp_path: Path, sink: SmtpSink) -> None:
    """The job was committed with the account, so the next start sends the e-mail."""
    folder, email = tmp_path / "data", new_email()
    with running_service(folder, smtp_url=sink.url, worker="off") as service:
        async with httpx.AsyncClient(base_url=service.url) as client:
            assert (await register(client, email)).status_code == 201
            service.process.kill()
        service.process.wait()
    assert sink.received == []
    with running_service(folder, smtp_url=sink.url):
        await wait_until(lambda: sink.mails_to(email))
    assert set(sink.count_by_message_id().values()) == {1}
