"""Mail into files, where no SMTP server is set."""

import asyncio
from email.policy import SMTPUTF8
from pathlib import Path

from referral.adapters.mail.renderer import MailRenderer
from referral.adapters.private_folders import make_private_folder
from referral.core.entities.mail import Mail


class FileMailer:
    """Writes each mail to a file of its own, which every mail program opens."""

    def __init__(self, folder: Path, letters: MailRenderer) -> None:
        """Take the folder, made with the first mail."""
        self._folder = folder
        self._letters = letters

    async def send(self, mail: Mail) -> None:
        """See the port. A second attempt writes the same file."""
        message = self._letters.write(mail).as_bytes(policy=SMTPUTF8)
        await asyncio.to_thread(self._store, f"{mail.id}.eml", message)

    def _store(self, name: str, message: bytes) -> None:
        make_private_folder(self._folder)
        draft = self._folder / f".{name}.draft"
        draft.touch(mode=0o600)
        draft.write_bytes(message)
        draft.rename(self._folder / name)
