"""strace is told where to strike, and its output is read for what was struck and how many calls there are."""

from pathlib import Path

import pytest

from chaos.stack import MissingSoftware
from chaos.sweep import tracing
from chaos.sweep.tracing import TracedCall, counted, find_strace, log_files, options, parse, struck

WORK = """\
41 pwrite64(14, "\\0\\0\\0\\6"..., 24, 135992) = 24
41 pwrite64(14, "\\n\\17\\367"..., 4096, 136016) = 4096
41 fdatasync(14)                     = 0
"""


def test_each_beginning_of_a_call_counts_once() -> None:
    assert [(call.thread, call.name) for call in parse(WORK)] == [(41, "pwrite64"), (41, "pwrite64"), (41, "fdatasync")]


def test_a_call_tells_its_file() -> None:
    first, second = parse('41 fdatasync(14</x/handfast.db-wal>) = 0\n41 unlink("/x/handfast.db-wal") = 0\n')
    assert (first.file, second.file) == ("/x/handfast.db-wal", "")


def test_a_call_that_another_thread_interrupts_is_one_call() -> None:
    output = '41 pwrite64(14, "x", 1, 0 <unfinished ...>\n42 fdatasync(14) = 0\n41 <... pwrite64 resumed>) = 1\n'
    assert [(call.thread, call.name) for call in parse(output)] == [(41, "pwrite64"), (42, "fdatasync")]


def test_the_end_of_a_thread_and_a_signal_are_no_calls() -> None:
    output = "41 --- SIGCONT {si_signo=SIGCONT} ---\n41 +++ killed by SIGKILL +++\n41 +++ exited with 70 +++\n"
    assert parse(output) == []


def test_a_line_that_is_not_whole_yet_does_not_count() -> None:
    assert len(parse(WORK + "41 pwrite64(14, ")) == 3


@pytest.mark.parametrize("mark", ["INJECTED", "DELAYED"])
def test_the_call_that_was_struck_is_the_one_that_strace_marks(mark: str) -> None:
    calls = parse(f"{WORK}41 fdatasync(14) = -1 EIO (Input/output error) ({mark})\n")
    assert struck(calls) == TracedCall(41, "fdatasync", f"14) = -1 EIO (Input/output error) ({mark})", mark)


def test_the_mark_may_stand_where_the_call_is_resumed() -> None:
    calls = parse('41 fdatasync(14 <unfinished ...>\n42 unlink("x") = 0\n41 <... fdatasync resumed>) = 0 (DELAYED)\n')
    found = struck(calls)
    assert found is not None
    assert (found.name, found.mark) == ("fdatasync", "DELAYED")


def test_without_a_mark_nothing_was_struck() -> None:
    assert struck(parse(WORK)) is None


def test_the_count_is_that_of_the_busiest_thread_for_numbers_are_counted_by_thread() -> None:
    assert counted(parse(WORK + "42 pwrite64(14) = 1\n42 ftruncate(15, 3) = 0\n")) == {
        "pwrite64": 2,
        "fdatasync": 1,
        "ftruncate": 1,
    }


def test_only_calls_on_the_logs_own_files_count() -> None:
    names = {file.name for file in log_files(Path("/var/lib/handfast/handfast.db"))}
    beside = {f"handfast.db{suffix}" for suffix in ("-wal", "-shm", "-journal", ".lock")}
    assert names == {"handfast.db", "handfast"} | beside


def test_strace_is_told_the_files_the_calls_and_where_to_strike() -> None:
    told = options(Path("/x/handfast.db"), Path("/x/trace"), "fdatasync:error=EIO:when=3")
    assert told[-1] == "--inject=fdatasync:error=EIO:when=3"
    assert told.count("-P") == len(log_files(Path("/x/handfast.db")))
    (wanted,) = [part for part in told if part.startswith("trace=")]
    assert {"?pwrite64", "?fdatasync", "?unlink", "?rename"} < set(wanted.removeprefix("trace=").split(","))


def test_to_count_nothing_is_injected() -> None:
    assert not [part for part in options(Path("/x/handfast.db"), Path("/x/trace"), "") if part.startswith("--inject")]


# -- the program -------------------------------------------------------------------------------------------------------


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def path_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH that has strace, apt-get or dpkg-deb, if anything; what a script needs is beside them."""
    folder = tmp_path / "path"
    folder.mkdir()
    for tool in ("sh", "mkdir", "cp", "chmod", "env", "touch"):
        (folder / tool).symlink_to(Path("/bin") / tool if (Path("/bin") / tool).exists() else Path("/usr/bin") / tool)
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_strace_on_path_is_taken(tmp_path: Path, path_folder: Path) -> None:
    expected = program(path_folder / "strace", "exit 0")
    assert find_strace(tools=tmp_path / "tools") == (str(expected),)


def test_otherwise_debians_packages_are_unpacked_once_without_root_and_that_is_said(
    tmp_path: Path, path_folder: Path
) -> None:
    asked = tmp_path / "asked"
    program(path_folder / "apt-get", f'echo "$@" >> {asked}; touch strace_6.deb libunwind8_1.deb')
    unpack = 'mkdir -p "$3/usr/bin" "$3/usr/lib"; touch "$3/usr/lib/libunwind-ptrace.so.0"'
    strace = 'echo "#!/bin/sh" > "$3/usr/bin/strace"; chmod 755 "$3/usr/bin/strace"'
    program(path_folder / "dpkg-deb", f"{unpack}; {strace}")
    said: list[str] = []
    first, second = (find_strace(tools=tmp_path / "tools", tell=said.append) for _ in range(2))
    unpacked = tmp_path / "tools" / "strace"
    assert first == second
    assert first == (
        "env",
        f"LD_LIBRARY_PATH={unpacked}/usr/lib",
        f"{unpacked}/usr/bin/strace",
        "-E",
        "LD_LIBRARY_PATH",
    )
    assert asked.read_text().split() == ["download", *tracing.PACKAGES]
    assert len(said) == 1


def test_where_there_are_no_debian_packages_the_error_says_what_to_install(tmp_path: Path, path_folder: Path) -> None:
    with pytest.raises(MissingSoftware, match="apt-get install strace") as missing:
        find_strace(tools=tmp_path / "tools")
    assert "python -m chaos.sweep --only planned" in str(missing.value)


def test_a_download_that_fails_is_told_with_its_reason(tmp_path: Path, path_folder: Path) -> None:
    program(path_folder / "apt-get", "echo no route to host >&2; exit 100")
    program(path_folder / "dpkg-deb", "exit 0")
    with pytest.raises(MissingSoftware, match="no route to host"):
        find_strace(tools=tmp_path / "tools")


def test_a_strace_that_may_not_trace_is_told_with_the_way_to_allow_it(tmp_path: Path, path_folder: Path) -> None:
    program(path_folder / "strace", "echo PTRACE_TRACEME: Operation not permitted >&2; exit 1")
    with pytest.raises(MissingSoftware, match="SYS_PTRACE"):
        find_strace(tools=tmp_path / "tools")
