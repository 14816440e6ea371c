"""E-mail through a real SMTP server, from the registration to the recipient."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from email.headerregistry import Address
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import httpx
import msgspec
import pytest
from markupsafe import escape
from msgspec.structs import replace

from referral.adapters.jobs.admin import JobAdmin
from referral.adapters.mail.qr import SegnoQrCodeRenderer
from referral.adapters.mail.renderer import MailRenderer
from referral.adapters.mail.smtp import MAX_CONNECTIONS, SmtpMailer
from referral.core.entities.mail import Mail
from referral.core.entities.users import Locale
from referral.settings import Sender, Settings
from tests.conftest import execute, run_service
from tests.support.api_client import Member, join, new_email, register
from tests.support.certificate import make_certificate
from tests.support.fakes.system import FakeClock
from tests.support.service_process import free_port
from tests.support.smtp_sink import BlackHole, ReceivedMail, SmtpSink
from tests.support.waiting import wait_for_value, wait_until


@pytest.fixture
async def worker_settings(settings: Settings, sink: SmtpSink, database_url: str) -> Settings:
    """Settings of a service that sends e-mail to the sink; the queue is empty."""
    await execute(database_url, "TRUNCATE pgqueuer, pgqueuer_log")
    return replace(settings, smtp_url=sink.url, worker="inline")


@pytest.fixture
async def service(worker_settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of that service."""
    async with run_service(worker_settings) as client:
        yield client


async def test_registration_sends_welcome_and_notification(
    service: httpx.AsyncClient, sink: SmtpSink
) -> None:
    """The user gets a welcome in their locale, and the referrer sees the e-mail as typed."""
    ann = await join(service)
    await ann.issue_code(code="Mail-Ann")
    typed = "Bob.O'Neil+x@Example.COM"
    await join(service, typed, referral_code="Mail-Ann", locale="ru")
    await wait_until(lambda: len(sink.received) == 3)
    welcome = next(mail for mail in sink.received if mail.to == "Bob.O'Neil+x@example.com")
    assert welcome.message["Subject"] == "Добро пожаловать"
    by_subject = {mail.message["Subject"]: mail for mail in sink.mails_to(ann.email)}
    notification = by_subject["Someone joined with your code"]
    assert typed in notification.part("plain")
    assert "Bob.O&#39;Neil+x@Example.COM" in notification.part("html")


async def test_mail_has_standard_headers(service: httpx.AsyncClient, sink: SmtpSink) -> None:
    """The headers have From, Date, a unique Message-ID, the language and Auto-Submitted."""
    ann = await join(service)
    await wait_until(lambda: sink.mails_to(ann.email))
    message = sink.mails_to(ann.email)[0].message
    assert message["From"] == "Referral <no-reply@localhost>"
    assert message["To"] == ann.email
    assert message["Date"].datetime.tzinfo is not None
    assert re.fullmatch(r"<[0-9a-f-]{36}@localhost>", message["Message-ID"])
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Content-Language"] == "en"
    assert "List-Unsubscribe" not in message


async def test_mailed_code_has_a_qr_code(service: httpx.AsyncClient, sink: SmtpSink) -> None:
    """The link is in the text, and an inline QR code in the HTML."""
    ann = await join(service)
    code = await ann.issue_code(code="Mail-Picture", max_uses=7)
    assert (await ann.request("POST", "/me/codes/active/email")).status_code == 202
    await wait_until(lambda: len(sink.mails_to(ann.email)) == 2)
    mail = next(mail for mail in sink.mails_to(ann.email) if "code" in mail.message["Subject"])
    assert code["url"] in mail.part("plain")
    assert "Uses left: 7" in mail.part("plain")
    (picture,) = [part for part in mail.message.walk() if part.get_content_type() == "image/png"]
    assert picture["Content-ID"] == "<qr@referral>"
    assert 'src="cid:qr@referral"' in mail.part("html")
    shown = await ann.request("GET", f"/me/codes/{code['id']}/qr.png")
    assert picture.get_content() == shown.content


async def test_unsubscribe_needs_a_post(service: httpx.AsyncClient, sink: SmtpSink) -> None:
    """RFC 8058: the POST unsubscribes, and opening the link shows a page."""
    ann = await join(service)
    await ann.issue_code(code="Mail-Mute")
    await join(service, referral_code="Mail-Mute")
    await wait_until(lambda: len(sink.mails_to(ann.email)) == 2)
    notification = next(
        mail for mail in sink.mails_to(ann.email) if "joined" in mail.message["Subject"]
    )
    assert notification.message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    header = next(
        line
        for line in notification.content.split(b"\r\n")
        if line.startswith(b"List-Unsubscribe:")
    )
    link = urlsplit(header.decode().removeprefix("List-Unsubscribe: <").rstrip(">"))
    assert link.geturl() in notification.part("plain")
    page = await service.get(link.path)
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert escape(ann.email) in page.text
    assert await gets_notifications(ann)
    unsubscribed = await service.post(link.path, data={"List-Unsubscribe": "One-Click"})
    assert unsubscribed.status_code == 200
    assert not await gets_notifications(ann)
    for wrong in (link.path[:-1], f"{link.path}x", "/unsubscribe/é", "/unsubscribe/AAAA"):
        for method in ("GET", "POST"):
            rejected = await service.request(method, wrong)
            assert rejected.status_code == 404
            assert rejected.headers["Content-Type"] == "text/html; charset=utf-8"
            assert "<form" not in rejected.text


async def gets_notifications(member: Member) -> bool:
    """Tell whether a member gets notifications of referrals."""
    value: bool = (await member.request("GET", "/me")).json()["notify_on_referral"]
    return value


async def test_concurrent_requests_send_five_mails_at_most(
    service: httpx.AsyncClient, sink: SmtpSink
) -> None:
    """Of 20 concurrent requests 4 succeed; the welcome was the first of 5."""
    ann = await join(service)
    await ann.issue_code()
    await wait_until(lambda: sink.mails_to(ann.email))
    requests = [ann.request("POST", "/me/codes/active/email") for _ in range(20)]
    responses = await asyncio.gather(*requests)
    assert sorted(response.status_code for response in responses) == [202] * 4 + [429] * 16
    rejected = next(response for response in responses if response.status_code == 429)
    assert 3500 < int(rejected.headers["Retry-After"]) <= 3600
    assert rejected.json()["type"].endswith("/problems/too-many-requests")
    await wait_until(lambda: len(sink.mails_to(ann.email)) == 5)


@pytest.mark.parametrize(
    ("email", "mailbox"),
    [
        ("иван@пример.рф", "иван@xn--e1afmkfd.xn--p1ai"),
        ("=@example.com", "=@example.com"),
        ("a?b=c{d}|e@example.com", "a?b=c{d}|e@example.com"),
        ("`rm-rf`&<script>@example.com", None),
        ("x\r\nBcc: eve@example.com", None),
        ("=?utf-8?q?eve?=@example.com", None),
        ("a@b.example,c@d.example", None),
        (f"{'l' * 64}@{'d' * 60}.{'d' * 60}.{'d' * 50}.example.com",) * 2,
    ],
)
async def test_unusual_emails_are_mailed_or_rejected(
    service: httpx.AsyncClient, sink: SmtpSink, email: str, mailbox: str | None
) -> None:
    """The message has one recipient and one To line, whatever the spelling."""
    response = await register(service, email)
    if mailbox is None:
        assert response.status_code == 422
        return
    assert response.status_code == 201
    await wait_until(lambda: sink.mails_to(mailbox))
    (mail,) = sink.mails_to(mailbox)
    headers = mail.content.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    assert f"To: {mailbox}" in headers
    assert email in mail.part("plain").replace("\n", "")


async def test_email_is_escaped_in_html(service: httpx.AsyncClient, sink: SmtpSink) -> None:
    """An ampersand and an apostrophe are escaped."""
    await register(service, "a&b'c@example.com")
    await wait_until(lambda: sink.mails_to("a&b'c@example.com"))
    html = sink.mails_to("a&b'c@example.com")[0].part("html")
    assert "a&amp;b&#39;c@example.com" in html


@pytest.mark.parametrize("reply", ["451 4.3.0 later", "421 4.3.2 closing", None])
async def test_temporarily_rejected_mail_is_retried(
    worker_settings: Settings, sink: SmtpSink, reply: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a 4xx or a hang the next attempt has the same Message-ID."""
    monkeypatch.setattr("referral.adapters.mail.smtp.REPLY_TIMEOUT_SECONDS", 0.5)
    message_ids: list[str] = []

    def reject_first(mail: ReceivedMail) -> str | None:
        message_ids.append(mail.id)
        return reply if len(message_ids) == 1 else "250 OK"

    sink.reply = reject_first
    async with run_service(worker_settings) as service:
        ann = await join(service)
        await wait_until(lambda: sink.mails_to(ann.email), 10)
    assert [message_ids[0], message_ids[0]] == message_ids
    assert len(sink.received) == 1


async def test_permanently_rejected_mail_is_held(
    service: httpx.AsyncClient, sink: SmtpSink, database_url: str
) -> None:
    """The operator sees the SMTP code without the e-mail, and can retry the job."""
    sink.reply = lambda mail: f"550 5.1.1 <{mail.to}> is unknown here"
    ann = await join(service)
    job_admin = JobAdmin(database_url)
    (job,) = await wait_for_value(lambda: job_admin.list_jobs("held", 9))
    assert job.error.endswith("SMTPDataError 550 5.1.1")
    assert ann.email not in job.traceback
    sink.reply = lambda _: "250 OK"
    await job_admin.retry([job.id])
    await wait_until(lambda: sink.mails_to(ann.email), 5)


async def test_missing_smtputf8_holds_only_non_ascii_local_parts(
    settings: Settings, database_url: str
) -> None:
    """A non-ASCII domain is sent in its ASCII form."""
    await execute(database_url, "TRUNCATE pgqueuer, pgqueuer_log")
    sink = SmtpSink(free_port(), smtputf8=False)
    sink.start()
    async with run_service(replace(settings, smtp_url=sink.url, worker="inline")) as service:
        await register(service, "пётр@example.com")
        await register(service, "petr@пример.рф")
        await wait_until(lambda: sink.mails_to("petr@xn--e1afmkfd.xn--p1ai"))
        (job,) = await wait_for_value(lambda: JobAdmin(database_url).list_jobs("held", 9))
    assert job.error.endswith("SMTPNotSupported")
    sink.stop()


async def test_smtp_connection_is_reused(
    worker_settings: Settings, service: httpx.AsyncClient, sink: SmtpSink
) -> None:
    """Several e-mails use one connection, and a dropped connection is replaced."""
    for _ in range(4):
        email = new_email()
        await register(service, email)
        await wait_until(lambda email=email: sink.mails_to(email))  # type: ignore[misc]
    assert len(sink.connections) == 1
    sink.stop()
    again = SmtpSink(urlsplit(worker_settings.smtp_url or "").port or 0)
    again.start()
    ann = await join(service)
    await wait_until(lambda: again.mails_to(ann.email), 5)
    again.stop()


async def test_concurrent_mails_share_few_connections(sink: SmtpSink) -> None:
    """The pool is bounded, as SMTP servers limit connections per client."""
    renderer = MailRenderer(
        Address("Referral", "no-reply", "test"), FakeClock(), SegnoQrCodeRenderer()
    )
    mailer = SmtpMailer(sink.url, renderer)
    facts: dict[str, object] = {"email": "ann@example.com", "docs": "http://test/docs"}
    mails = [
        Mail(uuid4(), f"ann{number}@example.com", Locale.EN, "welcome", facts)
        for number in range(3 * MAX_CONNECTIONS)
    ]
    await asyncio.gather(*map(mailer.send, mails))
    await mailer.close()
    assert len(sink.received) == len(mails)
    assert len(sink.connections) <= MAX_CONNECTIONS


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
async def test_mail_is_sent_over_tls_with_a_login(
    settings: Settings,
    database_url: str,
    tmp_path: Path,
    scheme: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """STARTTLS and implicit TLS both verify the certificate."""
    await execute(database_url, "TRUNCATE pgqueuer, pgqueuer_log")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(make_certificate(tmp_path / "server.pem"))
    sink = SmtpSink(
        free_port(), tls=context, implicit_tls=scheme == "smtps", credentials=("us:er", "p@ss")
    )
    sink.start()
    url = f"{scheme}://us%3Aer:p%40ss@127.0.0.1:{sink.port}"
    secure = replace(settings, smtp_url=url, worker="inline")
    async with run_service(secure) as service:
        ann = await join(service)
        job_admin = JobAdmin(database_url)

        async def has_failed() -> bool:
            return any(job.error for job in await job_admin.list_jobs("waiting", 9))

        await wait_for_value(has_failed)
        assert sink.received == []
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
    async with run_service(secure):
        await wait_until(lambda: sink.mails_to(ann.email))
    sink.stop()


async def test_silent_smtp_server_does_not_delay_registrations(
    settings: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All e-mails are sent once the server responds again."""
    await execute(database_url, "TRUNCATE pgqueuer, pgqueuer_log")
    monkeypatch.setattr("referral.adapters.mail.smtp.REPLY_TIMEOUT_SECONDS", 1.0)
    port = free_port()
    hole = BlackHole(port)
    silent = replace(settings, smtp_url=f"smtp://127.0.0.1:{port}", worker="inline")
    async with run_service(silent) as service:
        async with asyncio.timeout(10):
            members = [await join(service) for _ in range(5)]
        hole.close()
        sink = SmtpSink(port)
        sink.start()
        for member in members:
            await wait_until(lambda member=member: sink.mails_to(member.email), 15)  # type: ignore[misc]
    assert set(sink.count_by_message_id().values()) == {1}
    sink.stop()


async def test_mail_is_written_to_files_without_smtp(settings: Settings, database_url: str) -> None:
    """The data folder gets one private file for each e-mail."""
    await execute(database_url, "TRUNCATE pgqueuer, pgqueuer_log")
    folder = settings.data_dir / "mail"
    async with run_service(replace(settings, worker="inline")) as service:
        ann = await join(service)
        await wait_until(lambda: list(folder.glob("*.eml")))
    (file,) = folder.glob("*.eml")
    assert f"To: {ann.email}".encode() in file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


async def test_sender_is_configurable(worker_settings: Settings, sink: SmtpSink) -> None:
    """Its domain is the domain of the Message-ID."""
    chosen = replace(worker_settings, mail_from=Sender.parse("Реферал <hello@example.org>"))
    async with run_service(chosen) as service:
        ann = await join(service)
        await wait_until(lambda: sink.mails_to(ann.email))
    message = sink.mails_to(ann.email)[0].message
    assert message["From"] == "Реферал <hello@example.org>"
    assert message["Message-ID"].endswith("@example.org>")


async def test_rejected_registration_sends_no_mail(
    service: httpx.AsyncClient, sink: SmtpSink
) -> None:
    """The owner of the e-mail gets none either."""
    ann = await join(service)
    await wait_until(lambda: sink.mails_to(ann.email))
    taken = await register(service, ann.email.upper())
    unusable = await register(service, "zoe@example.com", referral_code="NOBODYS")
    assert (taken.status_code, unusable.status_code) == (409, 422)
    last = await join(service)
    await wait_until(lambda: sink.mails_to(last.email))
    assert [mail.to for mail in sink.received] == [ann.email, last.email]


async def test_mail_job_holds_an_id_and_no_email(settings: Settings, database_url: str) -> None:
    """The payload is the user's id."""
    await execute(database_url, "TRUNCATE pgqueuer, pgqueuer_log")
    async with run_service(settings) as service:
        ann = await join(service)
        (waiting,) = await JobAdmin(database_url).list_jobs("waiting", 9)
        assert waiting.kind == "welcome-mail"
    connection = await asyncpg.connect(database_url)
    payload = await connection.fetchval("SELECT payload FROM pgqueuer")
    await connection.close()
    assert msgspec.json.decode(payload) == {"user_id": ann.id}
