"""Counts what Python code executes: bytecode instructions and calls, of everything that is called meanwhile.

They are the same on every machine, which machine instructions are not (they change with the interpreter's build), and
differ from one Python version to the next. The garbage collector waits meanwhile: it would run what others have left to
be run when their objects go, and that would be counted too.
"""

from __future__ import annotations

import gc
import sys
from types import FrameType, TracebackType
from typing import Any, Self


class Counting:
    """``with Counting() as count: …`` counts what is called within; what is written there itself is not counted."""

    def __init__(self) -> None:
        self.instructions = 0
        self.calls = 0

    def __enter__(self) -> Self:
        self._before, self._collects = sys.gettrace(), gc.isenabled()
        gc.disable()
        sys.settrace(self._trace)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        sys.settrace(self._before)
        if self._collects:
            gc.enable()

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code is Counting.__exit__.__code__:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self.instructions += event == "opcode"
        self.calls += event == "call"
        return self._trace
