"""A cluster is a real Postgres that can be stopped in every way, and comes back with what it promised to keep."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import psycopg
import pytest

from chaos.stack import MissingSoftware, NotInTime, PostgresCluster, Stack, StartFailed, free_port
from chaos.stack import postgres as postgres_module
from chaos.stack.postgres_binaries import find_binaries

PREPARED = "SELECT gid FROM pg_prepared_xacts"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack() as stack:
        yield stack


@pytest.fixture(scope="module")
def cluster(stack: Stack) -> PostgresCluster:
    """One cluster for all tests that leave it as they found it: running, and with nothing prepared."""
    return stack.start(PostgresCluster("shared", stack.path, max_prepared_transactions=7))


def prepare(cluster: PostgresCluster, gid: str) -> None:
    with closing(psycopg.connect(cluster.dsn())) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS promise (gid text)")
        connection.commit()
        connection.tpc_begin(gid)
        connection.execute("INSERT INTO promise VALUES (%s)", (gid,))
        connection.tpc_prepare()


def test_settings_reach_the_server(cluster: PostgresCluster) -> None:
    assert cluster.fetch("SHOW max_prepared_transactions") == [("7",)]
    assert cluster.fetch("SHOW fsync") == [("on",)]


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_prepared_transaction_survives_stop_and_start(
    cluster: PostgresCluster, mode: postgres_module.StopMode
) -> None:
    prepare(cluster, f"kept-{mode}")
    dsn = cluster.dsn()
    cluster.stop(mode)
    assert not cluster.alive
    cluster.start()
    assert cluster.dsn() == dsn
    assert cluster.fetch(PREPARED) == [(f"kept-{mode}",)]
    assert cluster.execute(f"COMMIT PREPARED 'kept-{mode}'".encode()) == "COMMIT PREPARED"


def test_a_killed_server_starts_again_with_its_prepared_transactions(cluster: PostgresCluster) -> None:
    prepare(cluster, "kept")
    with cluster.connect() as idle:
        family = psutil.Process(cluster.process.pid).children()
        assert idle.info.backend_pid in [one.pid for one in family]
        cluster.kill()
        assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family)
    cluster.start()
    assert cluster.fetch(PREPARED) == [("kept",)]
    cluster.execute("ROLLBACK PREPARED 'kept'")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the shared memory of the system")
def test_a_killed_server_leaves_no_shared_memory_when_it_is_closed(stack: Stack) -> None:
    cluster = stack.start(PostgresCluster("killed", stack.path))
    identity = (cluster.data / "postmaster.pid").read_text().splitlines()[6].split()

    def exists() -> bool:
        return identity in [line.split()[:2] for line in Path("/proc/sysvipc/shm").read_text().splitlines()]

    cluster.kill()
    assert exists()  # or this test would show nothing
    cluster.close()
    assert not exists()


def test_a_smart_stop_waits_for_clients_and_says_so(stack: Stack) -> None:
    cluster = stack.start(PostgresCluster("patient", stack.path, timeout_s=0.5))
    with cluster.connect(), pytest.raises(NotInTime, match="Postgres patient still runs"):
        cluster.stop("smart")
    cluster.close()


def test_a_paused_server_answers_nobody_and_goes_on_afterwards(cluster: PostgresCluster) -> None:
    with cluster.connect() as connection:
        cluster.pause()
        connection.pgconn.send_query(b"SELECT 42")
        with socket.create_connection((cluster.host, cluster.port), timeout=5) as newcomer:
            newcomer.settimeout(0.2)
            newcomer.sendall(b"\x00\x00\x00\x08\x04\xd2\x16\x2f")  # "may I use TLS?", which a server answers at once
            with pytest.raises(TimeoutError):
                newcomer.recv(1)
        cluster.resume()
        answer = connection.pgconn.get_result()
        assert answer is not None
        assert answer.get_value(0, 0) == b"42"
        assert connection.pgconn.get_result() is None  # the end of the answer


def test_each_cluster_has_an_identity_of_its_own(stack: Stack, cluster: PostgresCluster) -> None:
    other = stack.start(PostgresCluster("other", stack.path, fsync=False))
    query = "SELECT system_identifier FROM pg_control_system()"
    assert other.fetch(query) != cluster.fetch(query)
    other.close()


def test_a_new_database_has_a_dsn(cluster: PostgresCluster) -> None:
    with psycopg.connect(cluster.create_database("Bank of / Odd Names")) as connection:
        assert connection.info.dbname == "Bank of / Odd Names"


def test_version_16_is_there_too(stack: Stack) -> None:
    cluster = stack.start(PostgresCluster("sixteen", stack.path, version=16))
    assert cluster.fetch("SHOW server_version_num")[0][0].startswith("16")
    cluster.close()


def test_programs_that_the_server_user_cannot_reach_are_copied(stack: Stack, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o700)
    installed = find_binaries(stack.path).bin.parent.parent
    for name in (installed.name, f"{installed.name}.libs"):
        (locked / name).symlink_to(installed.with_name(name))
    cluster = stack.start(PostgresCluster("copied", stack.path, package=locked / installed.name))
    program = Path(psutil.Process(cluster.process.pid).cmdline()[0])
    # Ourselves, we can enter our own folder; only as root another user runs the server.
    expected = stack.path if os.geteuid() == 0 else locked
    assert program.is_relative_to(expected)
    assert cluster.fetch("SELECT 1") == [(1,)]
    cluster.close()


def test_another_port_is_tried_when_the_first_is_taken(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        offers = [taken.getsockname()[1], free_port()]
        monkeypatch.setattr(postgres_module, "free_port", lambda: offers.pop(0))
        cluster = stack.start(PostgresCluster("displaced", stack.path))
        assert not offers
        assert cluster.port != taken.getsockname()[1]
        cluster.close()


def test_a_start_that_fails_shows_the_server_log(stack: Stack) -> None:
    broken = PostgresCluster("broken", stack.path, settings={"no_such_setting": "x"})
    with pytest.raises(StartFailed, match="unrecognized configuration parameter"):
        stack.start(broken)


def test_a_missing_package_says_what_to_install(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingSoftware, match="`make install` in a checkout"):
        PostgresCluster("absent", stack.path).start()
