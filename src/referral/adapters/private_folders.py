"""Folders that other users of the machine cannot enter."""

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
    """Create the data folder. The permissions of an existing folder are left to the operator."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(PRIVATE_FOLDER_MODE, exist_ok=True)


def check_data_folder(folder: Path) -> None:
    """Raise `Unavailable` when another user can replace the folders in the data folder.

    The rules are those of sshd's StrictModes: the folder and its parents belong to root or to the
    service's user and are not world-writable. The sticky bit makes a world-writable parent safe.
    """
    resolved = folder.resolve()
    _check_permissions(resolved, allow_sticky=False)
    check_parent_folders(resolved)


def check_parent_folders(folder: Path) -> None:
    """Raise `Unavailable` when another user can replace the folder or one of its parents."""
    for parent in folder.resolve().parents:
        _check_permissions(parent, allow_sticky=True)


def _check_permissions(folder: Path, *, allow_sticky: bool) -> None:
    status = folder.stat()
    if status.st_uid not in {0, os.geteuid()}:
        owner = _describe_user(status.st_uid)
        detail = f"{folder} belongs to {owner}, who could replace its contents."
        raise Unavailable(f"{detail} Set REFERRAL_DATA_DIR to another folder.")
    if status.st_mode & stat.S_IWOTH and not (allow_sticky and status.st_mode & stat.S_ISVTX):
        detail = f"Every user can write to {folder}. Run 'chmod o-w {folder}' and try again."
        raise Unavailable(detail)


def make_private_folder(folder: Path, owner: pwd.struct_passwd | None = None) -> None:
    """Create a folder with mode 0700 in the data folder, or set that mode on an existing one.

    `owner` defaults to the service's user. Raises `Unavailable` when the folder belongs to another
    user.
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
        raise Unavailable(
            f"{folder} links to a folder that other users can enter. Run 'chmod 700' on it."
        )
    os.fchmod(descriptor, PRIVATE_FOLDER_MODE)


def make_temporary_folder(folder: Path, owner: pwd.struct_passwd | None = None) -> None:
    """Create a folder with a fixed name in a world-writable folder such as /tmp.

    Raises `Unavailable` when the name is a symbolic link, or a folder that belongs to another user
    or that other users can enter.
    """
    with suppress(FileExistsError):
        folder.mkdir(PRIVATE_FOLDER_MODE)
    descriptor = _open_folder(folder, os.O_NOFOLLOW)
    try:
        _ensure_owner(descriptor, folder, owner)
        if os.fstat(descriptor).st_mode & OTHERS_MODE_BITS:
            raise Unavailable(f"Other users can enter {folder}. Remove it and try again.")
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
    """Check the owner of an open folder; a new folder is first given to `owner`."""
    owner_uid, status = owner.pw_uid if owner else os.geteuid(), os.fstat(descriptor)
    if status.st_uid == owner_uid:
        return
    # A symbolic link may lead to an existing folder, which must not change its owner.
    is_new = os.path.samestat(status, folder.lstat()) and not os.listdir(descriptor)
    if owner is None or status.st_uid != os.geteuid() or not is_new:
        owners = f"{_describe_user(status.st_uid)} instead of {_describe_user(owner_uid)}"
        hint = "Change its owner, or set another REFERRAL_DATA_DIR."
        raise Unavailable(f"{folder} belongs to {owners}. {hint}")
    os.fchown(descriptor, owner.pw_uid, owner.pw_gid)


def _describe_user(uid: int) -> str:
    try:
        return f"the user '{pwd.getpwuid(uid).pw_name}'"
    except KeyError:
        return f"the user {uid}"
