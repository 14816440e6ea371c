"""Delivery of mails into files, for a service without an SMTP server."""

import asyncio
from email.policy import SMTPUTF8
from pathlib import Path

from referral.adapters.mail.renderer import MailRenderer
from referral.adapters.private_folders import make_private_folder
from referral.core.entities.mail import Mail


class FileMailer:
    """Writes each mail to an `.eml` file, which mail programs can open."""

    def __init__(self, folder: Path, mail_renderer: MailRenderer) -> None:
        """The first mail creates the folder."""
        self._folder = folder
        self._mail_renderer = mail_renderer

    async def send(self, mail: Mail) -> None:
        """Write the file of a mail; another attempt overwrites it."""
        message = self._mail_renderer.render(mail).as_bytes(policy=SMTPUTF8)
        await asyncio.to_thread(self._write_file, f"{mail.id}.eml", message)

    def _write_file(self, name: str, message: bytes) -> None:
        make_private_folder(self._folder)
        temporary = self._folder / f".{name}.draft"
        temporary.touch(mode=0o600)
        temporary.write_bytes(message)
        temporary.rename(self._folder / name)
