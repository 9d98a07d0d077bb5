"""The file of bearer tokens."""

import hashlib
from pathlib import Path

import pytest

from coordinator.tokens import TokenFile, parse_tokens
from handfast.identity import Identity


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def test_a_line_gives_a_token_its_bearer(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"{digest('s3cret')} client/billing participant/accounts  # both\n\n# nothing\n")
    bearer = TokenFile(path).bearer("s3cret")
    assert bearer == Identity("spiffe://handfast/client/billing", frozenset({"accounts"}), client=True)
    assert TokenFile(path).bearer("s3cre") is None
    assert TokenFile(path).bearer("") is None


def test_the_file_s_own_hash_is_no_token(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"{digest('s3cret')} admin/alice\n")
    assert TokenFile(path).bearer(digest("s3cret")) is None


@pytest.mark.parametrize("rest", ["", " root", " admin", " admin/", " coordinator/x", " admin/a/b", " client/b;illing"])
def test_a_line_that_names_nobody_is_refused_by_its_number(rest: str) -> None:
    with pytest.raises(ValueError, match="line 2"):
        parse_tokens(f"# who\n{digest('s3cret')}{rest}\n")


def test_a_token_written_in_plain_by_mistake_is_not_repeated_in_the_message() -> None:
    with pytest.raises(ValueError, match="SHA-256") as refused:
        parse_tokens("hunter2 admin/alice\n")
    assert "hunter2" not in str(refused.value)
