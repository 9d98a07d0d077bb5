"""The command ``handfast``: a person's and a script's way to the coordinator.

``app``         the commands, and what becomes of an error: words on standard error, an exit code, never a traceback
``admin``       the calls to the coordinator's Admin service
``output``      where a command's answer goes: tables for a person, one JSON document for a script
``words``       names, colours and times, said the same way everywhere
``show_…``      one module for each report
``serving``     `serve`: the settings' flags, logging, and the server
``programs``    `demo` and `chaos`, imported only when they run

A command asks once, hands the protobuf answer to ``output``, and returns its exit code.
"""

from coordinator.cli.app import main

__all__ = ["main"]
