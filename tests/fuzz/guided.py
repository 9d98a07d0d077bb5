"""Fuzzing guided by coverage: atheris makes inputs, and keeps those that reach something new.

Atheris is no dependency of anything else here, and has wheels for some Pythons only: it lives in an environment of its
own, which ``make fuzz`` makes from tests/fuzz/requirements.txt. What an input must not do is said by the same checks
that the properties use; the seeds in ``corpus/`` are replayed by ``test_corpus`` on every run of the tests.
"""

import importlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).parent / "corpus"
INPUT_BYTES_MAX = 4_096
PACKAGES = ("handfast", "coordinator", "participant")


def main(name: str, check: Callable[[bytes], None]) -> None:
    """Fuzz until the time given on the command line is over (libFuzzer's own flags), or something breaks.

    Args:
        name: the folder of seeds, and of what is found.
        check: takes an input, and raises when a rule is broken.
    """
    atheris: Any = importlib.import_module("atheris")
    logging.disable(logging.WARNING)
    for module_name, module in sorted(sys.modules.items()):
        if module_name.partition(".")[0] in PACKAGES and "_pb2" not in module_name:
            _instrument(atheris, module)
    found = Path(".fuzz") / name
    found.mkdir(parents=True, exist_ok=True)
    flags = [f"-max_len={INPUT_BYTES_MAX}", f"-artifact_prefix={found}/broken-", "-timeout=60", "-rss_limit_mb=4096"]
    atheris.Setup([sys.argv[0], *flags, *sys.argv[1:], str(found), str(CORPUS / name)], check)
    atheris.Fuzz()


def _instrument(atheris: Any, module: Any) -> None:
    """Let atheris see which lines of the module's functions run."""
    for thing in list(vars(module).values()):
        if getattr(thing, "__module__", None) != module.__name__:
            continue
        if callable(thing) and hasattr(thing, "__code__"):
            atheris.instrument_func(thing)
        for part in list(vars(thing).values()) if isinstance(thing, type) else []:
            if hasattr(part, "__code__"):
                atheris.instrument_func(part)
