"""Whoever only looks on never holds up a run, whatever it looks at."""

import contextlib
from collections.abc import Sequence

from chaos.observers import Connection, Observer
from chaos.stack import PostgresCluster, Stack, wait_until


class Sleeper(Observer):
    """Looks for as long as it is let."""

    def look(self, connections: Sequence[Connection]) -> None:
        connections[0].execute("SELECT pg_sleep(600)")


def test_a_look_at_a_server_that_stands_still_can_be_given_up() -> None:
    with Stack() as stack, contextlib.ExitStack() as afterwards:
        cluster = stack.start(PostgresCluster("paused", stack.path))
        observer = Sleeper("sleeper", [cluster.connect], lambda: 0.0, 0.01)
        observer.start()
        wait_until(
            lambda: cluster.fetch("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'") != [],
            10,
            "the look did not begin",
        )
        cluster.pause()
        afterwards.callback(cluster.resume)
        observer.stop()  # hangs if it asks the server for leave
        assert cluster.process.paused
