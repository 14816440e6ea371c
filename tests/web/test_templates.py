"""Templates are compiled at the start, so an upgrade may replace their files."""

from email.headerregistry import Address
from uuid import UUID

import pytest
from jinja2 import PackageLoader

from referral.adapters.mail.qr import SegnoQrCodeRenderer
from referral.adapters.mail.renderer import MailRenderer
from referral.core.entities.mail import Mail
from referral.core.entities.users import Locale
from referral.web.pages.rendering import TEMPLATES
from tests.support.fakes.system import FakeClock


@pytest.fixture
def renderer(monkeypatch: pytest.MonkeyPatch) -> MailRenderer:
    """A renderer whose template files are gone after its construction."""
    created = MailRenderer(
        Address("Referral", "no-reply", "test"), FakeClock(), SegnoQrCodeRenderer()
    )
    monkeypatch.setattr(PackageLoader, "get_source", pytest.fail)
    return created


@pytest.mark.parametrize("locale", list(Locale))
def test_mails_need_no_template_files_after_the_start(
    renderer: MailRenderer, locale: Locale
) -> None:
    """No file of a template is read to render a mail."""
    variables: dict[str, object] = {"email": "ann@example.com", "docs": "http://test/docs"}
    mail = Mail(UUID(int=1), "ann@example.com", locale, "welcome", variables)
    assert renderer.render(mail).recipient == "ann@example.com"


def test_pages_need_no_template_files_after_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file of a template is read to render a page."""
    names = TEMPLATES.list_templates()
    monkeypatch.setattr(PackageLoader, "get_source", pytest.fail)
    assert {"confirm.html", "reset.html", "notice.html"} <= set(names)
    assert all(TEMPLATES.get_template(name) for name in names)
