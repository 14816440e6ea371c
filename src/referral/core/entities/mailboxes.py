"""Spellings of one mailbox: the dots and tags that the big mail providers ignore."""

from typing import NamedTuple


class Provider(NamedTuple):
    """The domains of a provider, and what it ignores in a local part.

    A tag begins with a character of `tags`. `ignored` characters do not count. The domains of a
    provider that `shares_users` are names of the same mailboxes.
    """

    domains: tuple[str, ...]
    tags: str = "+"
    ignored: str = ""
    shares_users: bool = False


PROVIDERS = (
    Provider(("gmail.com", "googlemail.com"), ignored=".", shares_users=True),
    Provider(("outlook.com", "hotmail.com", "live.com", "msn.com")),
    Provider(("icloud.com", "me.com", "mac.com"), shares_users=True),
    Provider(
        ("yahoo.com", "ymail.com", "rocketmail.com", "yahoo.co.uk", "yahoo.de", "yahoo.fr"),
        tags="-",
    ),
    Provider(("proton.me", "protonmail.com", "pm.me"), ignored=".-_", shares_users=True),
    Provider(("fastmail.com", "fastmail.fm")),
    Provider(
        ("yandex.ru", "ya.ru", "yandex.com", "yandex.by", "yandex.kz"),
        ignored=".-",
        shares_users=True,
    ),
    Provider(("mail.ru", "inbox.ru", "list.ru", "bk.ru", "internet.ru")),
)
PROVIDER_OF = {domain: provider for provider in PROVIDERS for domain in provider.domains}


def mailbox_of(email_key: str) -> str:
    """Return the address that all spellings of a canonical address's mailbox share."""
    local_part, _, domain = email_key.rpartition("@")
    provider = PROVIDER_OF.get(domain)
    if provider is None:
        return email_key
    # A tag follows a name: the first character is not the beginning of a tag.
    ends = (local_part.find(character, 1) for character in provider.tags)
    name = local_part[: min((end for end in ends if end > 0), default=None)]
    plain = name.translate(str.maketrans("", "", provider.ignored))
    return f"{plain or name}@{provider.domains[0] if provider.shares_users else domain}"
