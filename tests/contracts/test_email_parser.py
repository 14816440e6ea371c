"""The port `EmailParser`."""

import pytest
from hypothesis import example, given, settings, strategies

from referral.adapters import email_addresses as addresses_module
from referral.adapters.email_addresses import ValidatingEmailParser
from referral.core.entities.users import EmailAddress
from referral.core.errors import InvalidRequest
from referral.core.ports.email_addresses import EmailParser
from tests.support.fakes.email_addresses import FakeEmailParser

REAL = ValidatingEmailParser()
LABEL = "d" * 61


@pytest.mark.parametrize("email_parser", [FakeEmailParser(), REAL], ids=["fake", "real"])
def test_email_keeps_its_spelling_and_has_a_canonical_form(email_parser: EmailParser) -> None:
    """The canonical form is lower-case."""
    email = email_parser.parse("Ann.Example@Example.COM")
    assert email.original == "Ann.Example@Example.COM"
    assert email.email_key == "ann.example@example.com"
    assert email.local_part == "Ann.Example"


@pytest.mark.parametrize("email_parser", [FakeEmailParser(), REAL], ids=["fake", "real"])
@pytest.mark.parametrize("text", ["", "ann", "ann.example.com"])
def test_email_without_an_at_sign_is_rejected(email_parser: EmailParser, text: str) -> None:
    """The error names the field."""
    with pytest.raises(InvalidRequest) as raised:
        email_parser.parse(text)
    assert raised.value.field == "email"


@pytest.mark.parametrize(
    ("canonical", "spellings"),
    [
        ("ann@example.com", ["ann@example.com", "ANN@EXAMPLE.COM", "aNn@eXample.cOm"]),
        (
            "ann@xn--bcher-kva.example",
            [
                "ann@b\u00fccher.example",
                "ann@bu\u0308cher.example",
                "ANN@B\u00dcCHER.EXAMPLE",
                "ann@xn--bcher-kva.example",
                "ann@XN--BCHER-KVA.example",
            ],
        ),
        (
            "jos\u00e9@example.com",
            ["jos\u00e9@example.com", "jose\u0301@example.com", "JOSE\u0301@example.com"],
        ),
        (
            "\u0436\u0430\u043d\u043d\u0430@example.com",
            [
                "\u0436\u0430\u043d\u043d\u0430@example.com",
                "\u0416\u0410\u041d\u041d\u0410@example.com",
            ],
        ),
    ],
    ids=["case", "idn", "nfc", "cyrillic"],
)
def test_all_spellings_have_one_canonical_form(canonical: str, spellings: list[str]) -> None:
    """Case, U-label or A-label, composed or not: one canonical form, and the spelling is kept."""
    for spelling in [*spellings, canonical]:
        email = REAL.parse(spelling)
        assert (email.original, email.email_key) == (spelling, canonical)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ann@example.com", "ann@example.org"),
        ("ann@example.com", "ann+tag@example.com"),
        ("ann@example.com", "a.nn@example.com"),
        ("ann@example.com", "\u0430nn@example.com"),
        ("jose@example.com", "jos\u00e9@example.com"),
    ],
)
def test_different_emails_have_different_canonical_forms(one: str, other: str) -> None:
    """A tag, a dot, an accent or a letter of another alphabet makes another address."""
    assert REAL.parse(one).email_key != REAL.parse(other).email_key


@pytest.mark.parametrize(
    "text",
    [
        "o'brien@example.com",
        "first.last+tag@sub.example.co.uk",
        "!#$%&*/?^_`{|}~-@example.com",
        f"{'l' * 64}@example.com",
        f"ann@{LABEL}.{LABEL}.{LABEL}.{'d' * 61}.io",
    ],
)
def test_unusual_emails_are_accepted(text: str) -> None:
    """RFC 5321 allows them: up to 64 characters before the at sign and 254 in all."""
    assert REAL.parse(text).email_key == text


@pytest.mark.parametrize(
    "text",
    [
        "@example.com",
        "ann@",
        "ann@@example.com",
        "ann@localhost",
        "ann@[127.0.0.1]",
        "ann@example..com",
        "ann@-example.com",
        "ann.@example.com",
        ".ann@example.com",
        "an..n@example.com",
        '"ann"@example.com',
        "Ann <ann@example.com>",
        "ann@example.com, bob@example.com",
        " ann@example.com",
        "ann@example.com ",
        "an n@example.com",
        "an\tn@example.com",
        "ann@example.com\n",
        "ann@example.com\r\nBcc: bob@example.com",
        "ann\r\nBcc: bob@example.com",
        "an\rn@example.com",
        "an\nn@example.com",
        "an\0n@example.com",
        "an\x7fn@example.com",
        "an\x85n@example.com",
        "\ud800@example.com",
        "a\u202enn@example.com",
        "ann@exa\u202emple.com",
        "a\u2066nn@example.com",
        "\u200fann@example.com",
        "a\u200bnn@example.com",
        "a\u200dnn@example.com",
        "ann@exa\u200bmple.com",
        "a\ufeffnn@example.com",
        "a\u00adnn@example.com",
        "a\u2028nn@example.com",
        "\u0301ann@example.com",
        "=?utf-8?q?x?=@example.com",
        "=?utf-8?b?eA==?=@example.com",
        "ann=?utf-8?q?x?=bob@example.com",
        "\uff41nn@example.com",
        "ann@\uff45xample.com",
        "é" * 33 + "@example.com",
        "ann\uff20example.com",
        "\u210cann@example.com",
        "\ufb01nn@example.com",
        f"{'l' * 65}@example.com",
        f"ann@{'d' * 64}.com",
        f"ann@{LABEL}.{LABEL}.{LABEL}.{'d' * 62}.io",
        f"{'l' * 64}@{LABEL}.{LABEL}.{LABEL}.example.com",
        "ann@" + "d" * 100_000,
        "ann@" + "\u00fc" * 60 + ".example.com",
    ],
    ids=lambda text: ascii(text)[:40],
)
def test_unsafe_email_is_rejected(text: str) -> None:
    """Other syntax, control, bidi and invisible characters, encoded words, look-alikes, length."""
    with pytest.raises(InvalidRequest) as raised:
        REAL.parse(text)
    assert raised.value.field == "email"
    assert raised.value.detail.startswith("Send a valid e-mail address")


@pytest.mark.parametrize("text", ["a" * 60_000, f"ann@{'d' * 251}", '"' + "\\ " * 30_000])
def test_overlong_text_is_not_parsed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """It is rejected by its length alone."""
    parsed: list[str] = []
    monkeypatch.setattr(addresses_module, "validate_email", parsed.append)
    with pytest.raises(InvalidRequest) as raised:
        REAL.parse(text)
    assert raised.value.field == "email"
    assert parsed == []


LOCAL_PARTS = strategies.text("aZ09.+-_=?!'\"@ é\u0130\u212a", max_size=70)
DOMAINS = strategies.one_of(
    strategies.sampled_from(
        ["example.com", "EXAMPLE.Com", "a.test", "test", "x.invalid", "local", "1.2", "a-b.io"]
    ),
    strategies.text("aZ0.-é", max_size=12),
    strategies.from_regex(r"(ab--c|xn--bcher-kva|x{63}|x{64}|-a|a-|\.)\.(com|c0m|example)\Z"),
)


@given(local_part=LOCAL_PARTS, domain=DOMAINS)
@example(local_part="a" * 64, domain=f"{LABEL}.{LABEL}.{LABEL}.com")
@example(local_part="Ann", domain=f"{'x' * 63}.com")
@settings(max_examples=1000, deadline=None)
def test_plain_emails_are_parsed_like_all_others(local_part: str, domain: str) -> None:
    """The shortcut for plain addresses accepts, refuses and returns what the whole parser does."""
    text = f"{local_part}@{domain}"
    whole = ValidatingEmailParser()
    whole._is_plain_domain = lambda _: False  # type: ignore[assignment]  # noqa: SLF001
    assert _parse_or_none(ValidatingEmailParser(), text) == _parse_or_none(whole, text)


def _parse_or_none(email_parser: EmailParser, text: str) -> EmailAddress | None:
    try:
        return email_parser.parse(text)
    except InvalidRequest:
        return None
