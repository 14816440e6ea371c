"""Folders that no other user of the machine may enter."""

import os
import pwd
import stat
from contextlib import suppress
from errno import ELOOP, ENOTDIR
from pathlib import Path

from referral.core.errors import Unavailable

PRIVATE_FOLDER_MODE = 0o700
OTHERS_MODE_BITS = stat.S_IRWXG | stat.S_IRWXO


def make_data_folder(folder: Path) -> None:
    """Make the service's data folder. An existing one is the operator's and is not changed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(PRIVATE_FOLDER_MODE, exist_ok=True)


def check_data_folder(folder: Path) -> None:
    """Raise `Unavailable` when another user may replace the folders in the data folder.

    As sshd's StrictModes: the folder and those above it belong to root or to the service's user,
    and nobody else may write to them. In a folder above, the sticky bit is enough.
    """
    real = folder.resolve()
    _check_permissions(real, allowed_mode=0)
    check_parent_folders(real)


def check_parent_folders(folder: Path) -> None:
    """Raise `Unavailable` when another user may replace a folder or one above it."""
    for parent in folder.resolve().parents:
        _check_permissions(parent, allowed_mode=stat.S_ISVTX)


def _check_permissions(folder: Path, allowed_mode: int) -> None:
    status = folder.stat()
    if status.st_uid not in {0, os.geteuid()}:
        detail = (
            f"{folder} belongs to {_describe_user(status.st_uid)}, who could replace what is in it."
        )
        raise Unavailable(f"{detail} Set REFERRAL_DATA_DIR to another folder.")
    if status.st_mode & stat.S_IWOTH and not status.st_mode & allowed_mode:
        detail = f"Every user may write to {folder}. Run 'chmod o-w {folder}' and try again."
        raise Unavailable(detail)


def make_private_folder(folder: Path, owner: pwd.struct_passwd | None = None) -> None:
    """Make a folder within the data folder, or withdraw the permissions of other users from it.

    `owner` is the user it belongs to, by default the service's own. Raises `Unavailable` when it
    belongs to another user.
    """
    make_data_folder(folder.parent)
    folder.mkdir(PRIVATE_FOLDER_MODE, exist_ok=True)
    descriptor = _open_folder(folder)
    try:
        _ensure_owner(descriptor, folder, owner)
        if os.fstat(descriptor).st_mode & OTHERS_MODE_BITS:
            _revoke_others(descriptor, folder)
    finally:
        os.close(descriptor)


def _revoke_others(descriptor: int, folder: Path) -> None:
    if folder.is_symlink():
        detail = f"{folder} leads to a folder that other users may enter. Run 'chmod 700' on it."
        raise Unavailable(detail)
    os.fchmod(descriptor, PRIVATE_FOLDER_MODE)


def make_temporary_folder(folder: Path, owner: pwd.struct_passwd | None = None) -> None:
    """Make a folder with a fixed name where every user may make one, as in /tmp.

    Raises `Unavailable` for a symbolic link, a folder of another user, and one that other users
    may enter.
    """
    with suppress(FileExistsError):
        folder.mkdir(PRIVATE_FOLDER_MODE)
    descriptor = _open_folder(folder, os.O_NOFOLLOW)
    try:
        _ensure_owner(descriptor, folder, owner)
        if os.fstat(descriptor).st_mode & OTHERS_MODE_BITS:
            detail = f"Other users may enter {folder}. Remove it and try again."
            raise Unavailable(detail)
    finally:
        os.close(descriptor)


def _open_folder(folder: Path, flags: int = 0) -> int:
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | flags)
    except OSError as error:
        if error.errno not in {ELOOP, ENOTDIR}:
            raise
        detail = f"{folder} is a symbolic link or a file. Remove it and try again."
        raise Unavailable(detail) from None


def _ensure_owner(descriptor: int, folder: Path, owner: pwd.struct_passwd | None) -> None:
    """Check the owner of an open folder; a new one is given to the owner first."""
    owner_uid, status = owner.pw_uid if owner else os.geteuid(), os.fstat(descriptor)
    if status.st_uid == owner_uid:
        return
    # A symbolic link may lead to a folder that is none of the service's.
    is_new = os.path.samestat(status, folder.lstat()) and not os.listdir(descriptor)
    if owner is None or status.st_uid != os.geteuid() or not is_new:
        owners = f"{_describe_user(status.st_uid)} instead of {_describe_user(owner_uid)}"
        hint = "Change its owner, or set another REFERRAL_DATA_DIR."
        detail = f"{folder} belongs to {owners}. {hint}"
        raise Unavailable(detail)
    os.fchown(descriptor, owner.pw_uid, owner.pw_gid)


def _describe_user(uid: int) -> str:
    try:
        return f"the user '{pwd.getpwuid(uid).pw_name}'"
    except KeyError:
        return f"the user {uid}"
