"""How long to wait before sending again."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.runtime.entropy import Entropy


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff, capped and jittered (equal jitter: half fixed, half random, so that it never collapses to
    zero and never marches in step).

    The cap matters as much as the growth: without one, a participant that was away for three hours waits another hour
    and a half for its next Commit.

    Args:
        base_s: the longest wait after the first attempt, in seconds.
        cap_s: the longest wait ever, in seconds.
        entropy: where the jitter comes from.
    """

    base_s: float
    cap_s: float
    entropy: Entropy

    def delay_s(self, attempts: int) -> float:
        """Return the wait after so many attempts, in seconds: between half the bound and the bound."""
        # 2**63 * base is past any cap; a larger exponent would only overflow.
        bound_s = min(self.cap_s, self.base_s * 2.0 ** min(attempts - 1, 63))
        return bound_s * (0.5 + 0.5 * self.entropy.jitter())
