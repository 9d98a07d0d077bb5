"""``python -m benchmarks.garbage.burner SHARE``: use this share of one core until SIGTERM."""

from __future__ import annotations

import sys
import time

PERIOD_S = 0.005


def burn(share: float) -> None:
    """Work and rest in turn; above 1 several threads' worth can't be had from one, so it works all the time."""
    while True:
        until_s = time.process_time() + min(share, 1.0) * PERIOD_S
        began_s = time.perf_counter()
        while time.process_time() < until_s:
            pass
        rest_s = PERIOD_S - (time.perf_counter() - began_s)
        if rest_s > 0 and share < 1.0:
            time.sleep(rest_s)


if __name__ == "__main__":
    print("burner is ready", flush=True)
    burn(float(sys.argv[1]))
