"""PostgresCluster: a real Postgres server, for as long as it is needed, that can be stopped in every way there is.

The programs are driven directly, without pg_ctl: the server stays our own child, so that it can be signalled and waited
for by process id, and dies with us.
"""

import signal
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from signal import Signals
from typing import Any, Literal, Self
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql
from psycopg.abc import Params, QueryNoTemplate

from chaos.stack.errors import NotInTime, NotRunning, StackError, StartFailed
from chaos.stack.ports import free_port, release_port
from chaos.stack.postgres_binaries import VERSION_DEFAULT, PostgresBinaries, find_binaries
from chaos.stack.postgres_data import give_to, make_data, release_shared_memory
from chaos.stack.process import ManagedProcess
from chaos.stack.waiting import wait_until

StopMode = Literal["fast", "immediate", "smart"]
"""fast: end all sessions, then shut down. immediate: as in a crash. smart: wait until every client has gone."""

_STOP_SIGNAL: Mapping[StopMode, Signals] = {
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
    "smart": signal.SIGTERM,
}
_PORT_ATTEMPTS_MAX = 5
_CONNECT_S_MAX = 5
_STATEMENT_S_MAX = 30
_ORPHANS_LEAVE_S_MAX = 2.0
_KILL_S_MAX = 5.0
_SOCKET_PATH_BYTES_MAX = 100


class PostgresCluster:
    """A Postgres server on 127.0.0.1 with data of its own. It keeps its port and its data through restarts.

    Args:
        name: how messages call it; also the name of its folder.
        stack_folder: the folder of the stack, `Stack.path`.
        version: the major version, 18 or 16.
        max_prepared_transactions: how many prepared transactions it holds at once; 0 refuses PREPARE TRANSACTION.
        max_connections: how many sessions it serves at once.
        fsync: whether a commit waits for the disk.
        settings: further server settings by name; they win over all others.
        port: the TCP port; a free one when None.
        package: where the programs are; found when None.
        timeout_s: the longest that starting or stopping may take, in seconds.
    """

    def __init__(
        self,
        name: str,
        stack_folder: Path,
        *,
        version: int = VERSION_DEFAULT,
        max_prepared_transactions: int = 256,
        max_connections: int = 200,
        fsync: bool = True,
        settings: Mapping[str, str | int] | None = None,
        port: int | None = None,
        package: Path | None = None,
        timeout_s: float = 15.0,
    ) -> None:
        self.name = name
        self.version = version
        self.host = "127.0.0.1"
        self.folder = stack_folder / f"postgres-{name}"
        self.data = self.folder / "data"
        self.log = self.folder / "postgres.log"
        self.timeout_s = timeout_s
        self._stack_folder = stack_folder
        self._package = package
        self._port = port
        self._port_is_ours = port is None
        self._basics: dict[str, str | int] = {
            "max_prepared_transactions": max_prepared_transactions,
            "max_connections": max_connections,
            "fsync": "on" if fsync else "off",
        }
        self._settings = dict(settings or {})
        self._process: ManagedProcess | None = None
        self._lock = threading.RLock()
        self._closed = False

    # Starting and stopping

    def start(self) -> Self:
        """Start the server, at first with new data, and wait until it answers.

        Raises:
            MissingSoftware: Postgres is not installed; the message says how to get it.
            CommandFailed: its data could not be made.
            StartFailed: it ended, or did not answer in time; the message carries the last lines of its log.
            StackError: it is running already, or was closed.
        """
        with self._lock:
            if self._closed:
                raise StackError(f"Postgres {self.name} was closed and cannot be started again. Make a new one.")
            if self._process is not None:
                self._process.start()
                return self
            binaries = self._prepare()
            for attempt in range(1, _PORT_ATTEMPTS_MAX + 1):
                if self._started(binaries, last_attempt=attempt == _PORT_ATTEMPTS_MAX or not self._port_is_ours):
                    break
        return self

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server and wait until it is gone. Prepared transactions stay. Nothing happens when it is down.

        Args:
            mode: see `StopMode`.

        Raises:
            NotInTime: it still runs, as it will after "smart" while a client is connected. It is left running.
        """
        if not self.alive:
            return
        self.resume()
        self.process.send(_STOP_SIGNAL[mode])
        self.process.wait(self.timeout_s)

    def restart(self, mode: StopMode = "fast") -> Self:
        """Stop the server if it runs, and start it on the same port and data.

        Raises:
            NotInTime: it did not stop.
            StartFailed: it did not start again.
        """
        self.stop(mode)
        return self.start()

    def kill(self) -> None:
        """Kill the server (SIGKILL), and wait until it can be started again.

        Its sessions see that it is dead and leave by themselves, as they do after a real kill; one that has not left
        after two seconds is killed too. Until the last has gone, the shared memory is in use and a start would fail.

        Raises:
            NotInTime: a session is still there.
        """
        if not self.alive:
            return
        self.process.pause()  # or it might start one more session after we have counted them
        sessions = self._sessions_of_server()
        self.process.kill()
        _signal_all(sessions, signal.SIGCONT)  # one that was paused would see nothing
        try:
            wait_until(
                lambda: not any(map(_is_running, sessions)), _ORPHANS_LEAVE_S_MAX, "sessions outlived the server"
            )
        except NotInTime:
            _signal_all(sessions, signal.SIGKILL)
            wait_until(
                lambda: not any(map(_is_running, sessions)),
                _KILL_S_MAX,
                f"sessions of Postgres {self.name} outlived SIGKILL: {[one.pid for one in sessions]}",
            )

    def pause(self) -> None:
        """Stop the server and all its sessions in their tracks (SIGSTOP): connections stay open, nothing answers.

        Raises:
            NotRunning: it does not run.
        """
        self.process.pause()
        _signal_all(self._sessions_of_server(), signal.SIGSTOP)

    def resume(self) -> None:
        """Let the server and its sessions go on (SIGCONT). Raises NotRunning when it does not run."""
        sessions = self._sessions_of_server()
        self.process.resume()
        _signal_all(sessions, signal.SIGCONT)

    def close(self) -> None:
        """End it for good, in the fastest way: an immediate stop, and SIGKILL when that takes too long."""
        self._closed = True
        with self._lock:
            if self._process is not None:
                try:
                    self.stop("immediate")
                except (NotInTime, NotRunning):
                    self.kill()
                self._process.close()
                release_shared_memory(self.data)
            if self._port_is_ours and self._port is not None:
                release_port(self._port)

    # State

    @property
    def process(self) -> ManagedProcess:
        """The server's process. Raises NotRunning before the first start."""
        if self._process is None:
            raise NotRunning(f"Postgres {self.name} was never started. Call start() first.")
        return self._process

    @property
    def alive(self) -> bool:
        """Whether the server runs (or is paused)."""
        return self._process is not None and self._process.alive

    @property
    def port(self) -> int:
        """Its TCP port. Raises NotRunning before the first start, when none was given."""
        if self._port is None:
            raise NotRunning(f"Postgres {self.name} has no port before its first start.")
        return self._port

    def wait_ready(self) -> None:
        """Wait until the server answers, no longer than `timeout_s`. Raises StartFailed when it does not."""
        self.process.wait_ready()

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of the server's log."""
        return self.process.log_tail(lines)

    # SQL

    def dsn(self, database: str = "postgres", *, user: str = "postgres", port: int | None = None) -> str:
        """The address to connect to.

        Args:
            database: the database's name.
            user: the role; none has a password.
            port: another port on 127.0.0.1, as of a proxy in front of the server; the server's own when None.
        """
        return f"postgresql://{quote(user, safe='')}@{self.host}:{port or self.port}/{quote(database, safe='')}"

    def connect(self, database: str = "postgres") -> "psycopg.Connection[tuple[Any, ...]]":
        """Open a connection in autocommit, whose statements are cancelled by the server after 30 s.

        Raises:
            psycopg.OperationalError: the server does not answer.
        """
        options = f"-c statement_timeout={_STATEMENT_S_MAX}s"
        return psycopg.connect(self.dsn(database), autocommit=True, connect_timeout=_CONNECT_S_MAX, options=options)

    def create_database(self, name: str) -> str:
        """Create an empty database. Returns its `dsn`. Raises psycopg.Error when the server refuses."""
        self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.dsn(name)

    def execute(self, query: QueryNoTemplate, params: Params | None = None, *, database: str = "postgres") -> str:
        """Run one statement in a connection of its own, outside any transaction.

        Returns:
            The server's command tag, such as "UPDATE 3".

        Raises:
            psycopg.Error: the server refused it, or does not answer.
        """
        with self.connect(database) as connection:
            return connection.execute(query, params).statusmessage or ""

    def fetch(
        self, query: QueryNoTemplate, params: Params | None = None, *, database: str = "postgres"
    ) -> list[tuple[Any, ...]]:
        """Run one query in a connection of its own. Returns its rows. Raises psycopg.Error as `execute` does."""
        with self.connect(database) as connection:
            return connection.execute(query, params).fetchall()

    # Inside

    def _prepare(self) -> PostgresBinaries:
        binaries = find_binaries(self._stack_folder, self.version, self._package)
        self.folder.mkdir(exist_ok=True)
        give_to(binaries.user, self.folder)
        make_data(binaries, self._stack_folder, self.data)
        return binaries

    def _started(self, binaries: PostgresBinaries, *, last_attempt: bool) -> bool:
        """Start the server for the first time. Returns False when its port was taken, and another may be tried."""
        if self._port is None:
            self._port = free_port()
        self._process = self._server(binaries)
        try:
            self._process.start()
        except StartFailed:
            if last_attempt or "could not create any TCP/IP sockets" not in self._process.output():
                raise
            self._process = None
            release_port(self._port)
            self._port = None
            return False
        return True

    def _server(self, binaries: PostgresBinaries) -> ManagedProcess:
        return ManagedProcess(
            f"Postgres {self.name}",
            [binaries.bin / "postgres", "-D", self.data, *self._options()],
            log=self.log,
            env=binaries.environment(self.folder),
            inherit_env=False,
            cwd=self.folder,
            ready=self._answers,
            ready_timeout_s=self.timeout_s,
            close_signal=signal.SIGQUIT,
            # The server's sessions are in process groups of their own: only it can end them, and free what it shares.
            death_signal=signal.SIGQUIT,
            user=binaries.user,
        )

    def _options(self) -> list[str]:
        settings: dict[str, str | int] = {
            "listen_addresses": self.host,
            "port": self.port,
            "unix_socket_directories": self._socket_folder(),
            # In the data directory, so that a killed server leaves nothing in /dev/shm.
            "dynamic_shared_memory_type": "mmap",
            "log_line_prefix": "%m [%p] %q%u@%d ",
            **self._basics,
            **self._settings,
        }
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def _socket_folder(self) -> str:
        """Its own folder, never /tmp, which others share. None when the path would be too long for a socket."""
        return str(self.folder) if len(bytes(self.folder)) < _SOCKET_PATH_BYTES_MAX - len(".s.PGSQL.65535.lock") else ""

    def _says_ready(self) -> bool:
        """Whether the server wrote so into its postmaster.pid: its process id in line 1, its state in line 8.

        Asked before any connection is tried, which another program could accept if it had taken the port.
        """
        try:
            lines = (self.data / "postmaster.pid").read_text().split("\n")
        except FileNotFoundError:
            return False
        return lines[0] == str(self.process.pid) and lines[7:8] != [] and lines[7].strip() == "ready"

    def _answers(self) -> bool:
        if not self._says_ready():
            return False
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _sessions_of_server(self) -> Sequence[psutil.Process]:
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []


def _is_running(process: psutil.Process) -> bool:
    """Whether it runs: a dead child that its new parent has not reaped yet holds no memory any more."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _signal_all(processes: Sequence[psutil.Process], number: Signals) -> None:
    """Signal processes; psutil makes sure that each is still the one that was listed."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
