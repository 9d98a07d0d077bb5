"""What happened in a run, line by line; written as values and put into words only when somebody reads it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

COORDINATOR_ID = "simu2345"
"""What every gtrid of a run begins with."""

Entry = tuple[float, str, str, tuple[object, ...]]
"""When in seconds, which process, a %-format, its arguments."""


@dataclass(slots=True)
class Trace:
    """The lines of one run."""

    entries: list[Entry] = field(default_factory=list)

    def note(self, at_s: float, who: str, words: str, *args: object) -> None:
        """Add a line. The arguments must be values that don't change."""
        self.entries.append((at_s, who, words, args))

    def lines(self) -> list[str]:
        """Every line, in order."""
        return [f"{at_s:12.6f}  {who:<14} {words % args if args else words}" for at_s, who, words, args in self.entries]

    def about(self, gtrid: str) -> list[str]:
        """The lines that concern one transaction, and those that concern none (crashes, partitions, jumps)."""
        if not gtrid:
            return self.lines()
        return [line for line in self.lines() if gtrid in line or COORDINATOR_ID not in line]

    def digest(self) -> str:
        """A fingerprint of the whole trace."""
        return hashlib.sha256("\n".join(self.lines()).encode()).hexdigest()
