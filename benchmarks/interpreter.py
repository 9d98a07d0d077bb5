"""How an interpreter was built, and which one makes the environment: ``python3 benchmarks/interpreter.py`` prints it.

CPython is compiled in two ways. With ``--enable-optimizations`` the compiler is told what a run of the test suite did,
and lays out the code for it: so do distributions, Docker's images and the binary releases. A version manager that
compiles on the spot mostly leaves that out, because it takes half an hour, and everything in Python takes a quarter to
a half longer for it. Figures that don't say which of the two they are of say little.

This file uses nothing but the standard library, and no syntax newer than Python 3.7's: ``make`` runs it before anything
is installed, with whatever ``python3`` is.
"""

import subprocess
import sys
import sysconfig

SYSTEM_PYTHON = "/usr/bin/python3"
_SYSTEM_PREFIX = "/usr"
_FLAG = "--enable-optimizations"
_WILL_DO = "import ensurepip, sys, venv; print(sys.version.split()[0]); sys.exit(sys.version_info < (3, 11))"


def is_optimized(config_args: str, prefix: str) -> bool:
    """Whether an interpreter was built with optimizations.

    Args:
        config_args: how it was configured, ``sysconfig.get_config_var("CONFIG_ARGS")``.
        prefix: where it is installed, without regard to virtual environments: ``sys.base_prefix``.
    """
    # Debian's own rules do what the flag does, and so it is not among the arguments.
    return _FLAG in config_args or prefix == _SYSTEM_PREFIX


def this_is_optimized() -> bool:
    """Whether the interpreter that runs this was."""
    return is_optimized(sysconfig.get_config_var("CONFIG_ARGS") or "", sys.base_prefix)


def version_if_fit(python: str) -> str:
    """An interpreter's version; empty when it can't make an environment for Handfast, or is none."""
    try:
        asked = subprocess.run([python, "-c", _WILL_DO], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return asked.stdout.strip() if asked.returncode == 0 else ""


def main() -> None:
    """Print the command to take, and say so when it is not ``python3``."""
    version = "" if this_is_optimized() else version_if_fit(SYSTEM_PYTHON)
    if version:
        print(
            f"python3 is {sys.version.split()[0]}, built without optimizations; taking {SYSTEM_PYTHON}, {version}. "
            "To have python3 nevertheless: make clean && make install PYTHON=python3",
            file=sys.stderr,
        )
    print(SYSTEM_PYTHON if version else "python3")


if __name__ == "__main__":
    main()
