"""Two Postgres servers to try things out on, until Ctrl-C. They come with `make install`; nothing else is needed.

python -m examples.shop.databases
"""

import signal
import sys

from chaos.stack import PostgresCluster, Stack

PORTS = (5501, 5502)


def main(ports: tuple[int, ...] = PORTS) -> None:
    """Start a server with a database `stock` on the first port and one with `orders` on the second."""
    with Stack() as stack:
        for name, port in zip(("stock", "orders"), ports, strict=True):
            cluster = stack.start(PostgresCluster(name, stack.path, port=port))
            cluster.create_database(name)
            print(cluster.dsn(name), flush=True)
        print("Ctrl-C ends both and deletes their data", flush=True)
        signal.pause()


if __name__ == "__main__":
    main(tuple(map(int, sys.argv[1:])) or PORTS)
