"""The error catalog's entries for programs: why the coordinator won't start, and what the command itself says.

This module imports the standard library only.
"""

from __future__ import annotations

from handfast.catalog_entry import Entry

PROGRAM_ENTRIES = (
    # -- start ---------------------------------------------------------------------------------------------------
    Entry(
        "LOG_PATH_UNUSABLE",
        "start",
        "FAILED_PRECONDITION",
        "The decision log {path} can't be opened: {problem}.",
        "Name a file in an existing, writable folder with --log.",
    ),
    Entry(
        "LOG_LOCKED",
        "start",
        "FAILED_PRECONDITION",
        "The decision log {path} is in use by another coordinator ({holder}).",
        "One log serves one coordinator: stop that one, or give this one a log of its own.",
    ),
    Entry(
        "LOG_CORRUPT",
        "start",
        "DATA_LOSS",
        "The decision log {path} is damaged: {problem}.",
        "Don't delete it: it may hold decisions that branches wait for. Restore it from a backup or replica, or copy "
        "it aside and run `handfast audit` against a repaired copy.",
    ),
    Entry(
        "LOG_RECORD_DAMAGED",
        "start",
        "DATA_LOSS",
        "The decision log {path} has a record that is not what was written: {problem}.",
        "Don't delete the log, and don't start on an old copy: branches may wait for what it holds. Copy all its files "
        "aside. `handfast log verify --log {path}` lists every record that is wrong and what can be done about each; "
        "docs/guide-operations.md goes through it.",
    ),
    Entry(
        "LOG_CHAIN_BROKEN",
        "start",
        "DATA_LOSS",
        "The decision log {path} does not hold what was written to it: {problem}.",
        "Records were changed, removed or put in, by a failing disk, a copy made while it was written, or a hand. Copy "
        "all its files aside. `handfast log verify --log {path}` lists everything that is wrong and what can be done; "
        "docs/guide-operations.md goes through it.",
    ),
    Entry(
        "LOG_SCHEMA_NEWER",
        "start",
        "FAILED_PRECONDITION",
        "The decision log {path} was written by a newer Handfast (schema {found}; this one knows {known}).",
        "Upgrade Handfast; a log is never downgraded.",
    ),
    Entry(
        "LOG_OF_ANOTHER",
        "start",
        "FAILED_PRECONDITION",
        "The decision log {path} belongs to coordinator {found}, not {expected}.",
        "Point --log at the right file, or drop --coordinator-id.",
    ),
    Entry(
        "ADDRESS_IN_USE",
        "start",
        "FAILED_PRECONDITION",
        "The address {address} can't be listened on: {problem}.",
        "Stop the other process, or choose another --address.",
    ),
    Entry(
        "ADDRESS_NOT_LOOPBACK",
        "start",
        "FAILED_PRECONDITION",
        "The address {address} can be reached from other machines, and there is no TLS on it.",
        "Give --tls-cert and --tls-key, listen on 127.0.0.1, or say --insecure if the network is yours alone.",
    ),
    Entry(
        "SETTING_INVALID",
        "start",
        "INVALID_ARGUMENT",
        "The setting {setting} is not valid: {problem}.",
        "`handfast serve --help` lists the settings.",
    ),
    # -- command -------------------------------------------------------------------------------------------------
    Entry(
        "COORDINATOR_UNREACHABLE",
        "command",
        "UNAVAILABLE",
        "No coordinator answers at {address}: {problem}.",
        "Start it with `handfast serve --address {address}`, or name another with --address or HANDFAST_ADDRESS.",
    ),
    Entry(
        "COORDINATOR_SILENT",
        "command",
        "DEADLINE_EXCEEDED",
        "The coordinator at {address} did not answer within {timeout_s} s.",
        "Allow it more time with --timeout; if it stays so, look at its log output and at the machine's load.",
    ),
    Entry(
        "COORDINATOR_MISSING",
        "command",
        "UNIMPLEMENTED",
        "What answers at {address} is no Handfast coordinator, or one of another version: {problem}.",
        "Check the address; `handfast version` and `handfast status` tell both versions.",
    ),
    Entry(
        "COORDINATOR_ODD",
        "command",
        "UNKNOWN",
        "The coordinator at {address} failed without naming an error: {problem}.",
        "Look at its log output; please report it.",
    ),
    Entry(
        "LOG_WITHOUT_CHAIN",
        "command",
        "FAILED_PRECONDITION",
        "The decision log {path} was written by an older Handfast, which kept no chain of its records.",
        "Start the coordinator on it once: that compares each record with its checksum and takes it into a chain.",
    ),
    Entry(
        "CONFIRMATION_MISSING",
        "command",
        "FAILED_PRECONDITION",
        "Nothing was done: {action} needs a confirmation, and nobody is there to give it.",
        "Run it in a terminal, or add --yes when you are sure.",
    ),
    Entry(
        "CONFIRMATION_REFUSED",
        "command",
        "ABORTED",
        "Nothing was done: {action} was not confirmed.",
        "Run the command again when you are sure.",
    ),
    Entry(
        "OPTIONS_UNFIT",
        "command",
        "INVALID_ARGUMENT",
        "The options don't fit together: {problem}.",
        "Add --help to the command; it lists them.",
    ),
    Entry(
        "CERTIFICATES_UNUSABLE",
        "command",
        "FAILED_PRECONDITION",
        "The certificates in {folder} were not all made: {problem}.",
        "Name a folder that you can write, and in which every certificate (.crt) has its key (.key); what is there is "
        "never written over.",
    ),
    Entry(
        "PART_MISSING",
        "command",
        "FAILED_PRECONDITION",
        "`handfast {command}` needs the Python module {module}, which is not here.",
        "{remedy}",
    ),
    Entry(
        "CODE_UNKNOWN",
        "command",
        "NOT_FOUND",
        "The error catalog has no entry {text!r}.",
        "`handfast explain` without a code lists them all.",
    ),
)
