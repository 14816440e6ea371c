"""What follows once nothing is left to confirm of an address."""

from referral.core.jobs import Enriching, Job, WelcomeMail
from referral.core.model import Role, User
from referral.core.ports import Enrichment


def jobs_after_confirmation(user: User, enrichment: Enrichment | None) -> list[Job]:
    """Return the jobs to queue in the transaction that confirms an address.

    Where addresses are not verified that is the registration. Third parties are asked for a
    profile only from here on: it is the mailbox's owner's, and must not be shown to anyone else.
    """
    jobs: list[Job] = [WelcomeMail(user.id)]
    if enrichment is not None and user.role is not Role.ADMIN:
        jobs.append(Enriching(user.id))
    return jobs
