"""The list of domains that offer disposable mailboxes."""

from disposable_email_domains import blocklist


class ListedDisposableDomains:
    """The domains of the package `disposable-email-domains`."""

    def contains(self, domain: str) -> bool:
        labels = domain.lower().split(".")
        return any(".".join(labels[start:]) in blocklist for start in range(len(labels)))
