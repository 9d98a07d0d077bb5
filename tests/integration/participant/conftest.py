"""A real Postgres for the participant SDK; what is about Postgres itself is asked of an older one too."""

from collections.abc import AsyncIterator, Iterator

import pytest

from chaos.stack import PostgresCluster, Stack
from chaos.stack.postgres_binaries import VERSION_DEFAULT
from participant.postgres import PostgresResource
from participant.testing import FakeCoordinator, serving
from tests.integration.participant.accounts_database import BQUAL, OPTIONS, Database
from tests.integration.participant.accounts_service import Accounts, make_accounts
from tests.integration.participant.tcp_proxy import TcpProxy

SLOTS = 128


VERSIONS = (VERSION_DEFAULT, 16)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have the modules ``test_postgres_*`` run on each version."""
    about_postgres = metafunc.module.__name__.rpartition(".")[2].startswith("test_postgres_")
    if about_postgres and "cluster" in metafunc.fixturenames:
        names = [f"Postgres {version}" for version in VERSIONS]
        metafunc.parametrize("cluster", VERSIONS, indirect=True, ids=names, scope="session")


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    with Stack() as stack:
        yield stack


@pytest.fixture(scope="session")
def cluster(stack: Stack, request: pytest.FixtureRequest) -> PostgresCluster:
    version = getattr(request, "param", None)
    cluster = PostgresCluster(
        f"participant-{version or 'any'}",
        stack.path,
        version=version or VERSION_DEFAULT,
        max_prepared_transactions=SLOTS,
        fsync=False,
    )
    stack.start(cluster)
    assert cluster.fetch("SHOW server_version_num")[0][0].startswith(str(cluster.version))
    return cluster


@pytest.fixture(scope="session")
def shared_database(cluster: PostgresCluster) -> Database:
    cluster.create_database("accounts")
    return Database(cluster, "accounts")


@pytest.fixture
def database(shared_database: Database) -> Iterator[Database]:
    """The database with two accounts, nothing prepared, and nobody else connected."""
    shared_database.execute("DROP TABLE IF EXISTS account CASCADE")
    shared_database.execute("CREATE TABLE account (id int PRIMARY KEY, value int NOT NULL CHECK (value >= 0))")
    shared_database.execute("INSERT INTO account SELECT n, 100 FROM generate_series(1, 100) n")
    yield shared_database
    shared_database.end_sessions()
    shared_database.end_prepared()


@pytest.fixture
async def resource(database: Database) -> AsyncIterator[PostgresResource]:
    resource = PostgresResource(database.dsn, OPTIONS)
    await resource.open(BQUAL)
    yield resource
    await resource.close()


@pytest.fixture
async def proxy(cluster: PostgresCluster) -> AsyncIterator[TcpProxy]:
    """Stands between ``proxied`` and its server."""
    async with TcpProxy(cluster.port) as proxy:
        yield proxy


@pytest.fixture
async def proxied(proxy: TcpProxy, database: Database) -> AsyncIterator[PostgresResource]:
    """The resource behind the proxy."""
    resource = PostgresResource(database.cluster.dsn(database.name, port=proxy.port), OPTIONS)
    await resource.open(BQUAL)
    yield resource
    await resource.close()


@pytest.fixture
async def coordinator() -> AsyncIterator[FakeCoordinator]:
    async with FakeCoordinator() as coordinator:
        yield coordinator


@pytest.fixture
async def accounts(database: Database, coordinator: FakeCoordinator) -> AsyncIterator[Accounts]:
    accounts = make_accounts(database, coordinator)
    async with serving(accounts):
        yield accounts
