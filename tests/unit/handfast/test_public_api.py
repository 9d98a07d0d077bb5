"""What `import handfast` offers, exactly, and what it loads."""

import inspect
import subprocess
import sys

import pytest

import handfast
from handfast import errors

PUBLIC = {
    *("connect", "client_interceptors", "current_transaction"),
    *("TransactionManager", "Transaction", "TransactionContext", "TlsConfig", "ServerTls"),
    *("Outcome", "AbortCause", "Standing", "OutcomeReport", "ExecuteResult", "BranchReport"),
    *("HandfastError", "TransactionError", "TransactionAborted", "DeadlineExceeded", "OutcomeUnknown"),
    *("HeuristicOutcome", "CoordinatorUnavailable", "Refused"),
    *("TooManyTransactions", "UnknownTransaction", "AlreadyDecided"),
}


def test_the_public_api_is_exactly_this() -> None:
    assert set(handfast.__all__) == set(dir(handfast)) == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert inspect.getdoc(getattr(handfast, name))


def test_another_name_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = handfast.nonsense


def test_every_error_is_public_and_stands_in_the_drawn_tree() -> None:
    kinds = {
        kind.__name__
        for kind in vars(errors).values()
        if inspect.isclass(kind) and kind.__module__ == "handfast.errors"
    }
    assert kinds <= PUBLIC
    assert all(f" {name} " in f" {errors.__doc__} ".replace("\n", " ") for name in kinds)
    assert all(issubclass(getattr(handfast, name), handfast.HandfastError) for name in kinds)


@pytest.mark.parametrize("module", ["handfast", "handfast.xid", "handfast.catalog", "handfast.context"])
def test_names_and_words_can_be_had_without_grpc(module: str) -> None:
    program = f"import sys, {module}; print('grpc' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert finished.stdout.strip() == "False"
