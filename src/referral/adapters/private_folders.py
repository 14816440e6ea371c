"""Folders that no other user of the machine may enter."""

import os
import pwd
import stat
from contextlib import suppress
from errno import ELOOP, ENOTDIR
from pathlib import Path

from referral.core.errors import Unavailable

PRIVATE_MODE = 0o700
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_data_folder(folder: Path) -> None:
    """Make the service's data folder. An existing one is the operator's and is not changed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(PRIVATE_MODE, exist_ok=True)


def check_data_folder(folder: Path) -> None:
    """Raise `Unavailable` when another user may replace the folders in the data folder.

    As sshd's StrictModes: the folder and those above it belong to root or to the service's user,
    and nobody else may write to them. In a folder above, the sticky bit is enough.
    """
    real = folder.resolve()
    _check_place(real, allowed=0)
    check_parents(real)


def check_parents(folder: Path) -> None:
    """Raise `Unavailable` when another user may replace a folder or one above it."""
    for parent in folder.resolve().parents:
        _check_place(parent, allowed=stat.S_ISVTX)


def _check_place(place: Path, allowed: int) -> None:
    found = place.stat()
    if found.st_uid not in {0, os.geteuid()}:
        detail = f"{place} belongs to {_name(found.st_uid)}, who could replace what is in it."
        raise Unavailable(f"{detail} Set REFERRAL_DATA_DIR to another folder.")
    if found.st_mode & stat.S_IWOTH and not found.st_mode & allowed:
        detail = f"Every user may write to {place}. Run 'chmod o-w {place}' and try again."
        raise Unavailable(detail)


def make_private_folder(folder: Path, owner: pwd.struct_passwd | None = None) -> None:
    """Make a folder within the data folder, or withdraw the permissions of other users from it.

    `owner` is the user it belongs to, by default the service's own. Raises `Unavailable` when it
    belongs to another user.
    """
    make_data_folder(folder.parent)
    folder.mkdir(PRIVATE_MODE, exist_ok=True)
    opened = _open(folder)
    try:
        _take(opened, folder, owner)
        if os.fstat(opened).st_mode & OTHERS:
            _close_to_others(opened, folder)
    finally:
        os.close(opened)


def _close_to_others(opened: int, folder: Path) -> None:
    if folder.is_symlink():
        detail = f"{folder} leads to a folder that other users may enter. Run 'chmod 700' on it."
        raise Unavailable(detail)
    os.fchmod(opened, PRIVATE_MODE)


def make_temporary_folder(folder: Path, owner: pwd.struct_passwd | None = None) -> None:
    """Make a folder with a fixed name where every user may make one, as in /tmp.

    Raises `Unavailable` for a symbolic link, a folder of another user, and one that other users
    may enter.
    """
    with suppress(FileExistsError):
        folder.mkdir(PRIVATE_MODE)
    opened = _open(folder, os.O_NOFOLLOW)
    try:
        _take(opened, folder, owner)
        if os.fstat(opened).st_mode & OTHERS:
            detail = f"Other users may enter {folder}. Remove it and try again."
            raise Unavailable(detail)
    finally:
        os.close(opened)


def _open(folder: Path, flags: int = 0) -> int:
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | flags)
    except OSError as error:
        if error.errno not in {ELOOP, ENOTDIR}:
            raise
        detail = f"{folder} is a symbolic link or a file. Remove it and try again."
        raise Unavailable(detail) from None


def _take(opened: int, folder: Path, owner: pwd.struct_passwd | None) -> None:
    """Check the owner of an open folder; a new one is given to the owner first."""
    wanted, found = owner.pw_uid if owner else os.geteuid(), os.fstat(opened)
    if found.st_uid == wanted:
        return
    # A symbolic link may lead to a folder that is none of the service's.
    is_new = os.path.samestat(found, folder.lstat()) and not os.listdir(opened)
    if owner is None or found.st_uid != os.geteuid() or not is_new:
        owners = f"{_name(found.st_uid)} instead of {_name(wanted)}"
        hint = "Change its owner, or set another REFERRAL_DATA_DIR."
        detail = f"{folder} belongs to {owners}. {hint}"
        raise Unavailable(detail)
    os.fchown(opened, owner.pw_uid, owner.pw_gid)


def _name(uid: int) -> str:
    try:
        return f"the user '{pwd.getpwuid(uid).pw_name}'"
    except KeyError:
        return f"the user {uid}"
