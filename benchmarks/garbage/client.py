"""``python -m benchmarks.garbage.client KIND ADDRESS TLS``: do one kind of mischief until SIGTERM."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.garbage.kinds import KINDS
from benchmarks.loop import run


async def main(kind: str, address: str, tls: str) -> None:
    """Do it."""
    print("garbage is ready", flush=True)
    await KINDS[kind](address, Path(tls))


if __name__ == "__main__":
    run(main(*sys.argv[1:]))
