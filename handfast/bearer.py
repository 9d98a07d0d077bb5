"""Bearer tokens: how a caller says who it is where TLS ends before the coordinator."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from handfast.frames.calls import Metadata

log = logging.getLogger(__name__)


def bearer(token_file: Path | str | None) -> Callable[[], Metadata]:
    """Give what goes along with each stream: the token, read from its file each time, for it may be replaced.

    Args:
        token_file: a file with the token and nothing else; None sends no token.

    Raises:
        OSError: the file can't be read now. Later, a file that can't be read is logged and no token is sent.
    """
    if token_file is None:
        return tuple
    path = Path(token_file)
    path.read_text(encoding="utf-8")

    def metadata() -> Metadata:
        try:
            return (("authorization", f"Bearer {path.read_text(encoding='utf-8').strip()}"),)
        except OSError as problem:
            log.warning("the token in %s can't be read, so none is sent: %s", path, problem)
            return ()

    return metadata
