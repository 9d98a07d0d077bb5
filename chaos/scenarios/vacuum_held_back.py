"""An orphan older than the log's memory stays prepared: it pins the vacuum horizon until a person decides."""

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

from chaos.bank_stack import DATABASE
from chaos.lab import Lab
from chaos.scenario import Finding, Run, Scenario
from chaos.stack import python_module
from handfast.xid import Gtrid, Xid

OLD_TIME_MS = 1_000_000_000_000
UPDATES = 400
KEPT, KEPT_AFTER, XMIN_AGE = (
    "dead rows kept",
    "dead rows kept after the resolution",
    "transactions the horizon lags behind",
)
DOCTOR_NAMES_IT = "the doctor names it"
_COMMAND_S_MAX = 30.0
_NOT_REMOVABLE = re.compile(r"(\d+) are dead but not yet removable")


async def act(lab: Lab) -> None:
    gid, gtrid = await lab.blocking(lambda: _make_orphan(lab))
    lab.say("postgres-accounts", "a branch is prepared that nobody remembers", f"as after restoring a backup: {gid}")
    await lab.until_in_doubt(1)
    await lab.blocking(lambda: _update(lab))
    lab.facts[KEPT] = await lab.blocking(lambda: _vacuum(lab))
    lab.say(
        "postgres-accounts",
        f"VACUUM must keep {lab.facts[KEPT]:g} dead rows",
        "the orphan could still want to see them",
    )
    in_doubt = await lab.blocking(lambda: _handfast(lab, "indoubt"))
    shown = [one for one in _found(in_doubt, "gtrid", gtrid) if "xmin_age" in one]
    lab.facts[XMIN_AGE] = float(max((int(one["xmin_age"]) for one in shown), default=0))
    doctor = await lab.blocking(lambda: _handfast(lab, "doctor"))
    lab.facts[DOCTOR_NAMES_IT] = float(gid in json.dumps(doctor))
    lab.say(
        "coordinator", "`handfast indoubt` and `handfast doctor` show it", "with its age and the command that ends it"
    )
    await lab.rest(2)
    wish = ("resolve", gtrid, "--rollback", "--heuristic", "--yes", "--reason", "never committed")
    done = await lab.blocking(lambda: _handfast(lab, *wish))
    if error := done.get("error"):
        lab.say("coordinator", f"`handfast resolve` is refused: {error['message']}")
    await lab.until_in_doubt(0)
    lab.say(
        "postgres-accounts",
        "the operator has rolled it back",
        "`handfast resolve … --rollback --heuristic`: where nobody knows the decision, a person answers for it",
    )
    lab.facts[KEPT_AFTER] = await lab.blocking(lambda: _vacuum(lab))
    await lab.pay()


def _make_orphan(lab: Lab) -> tuple[str, str]:
    """Prepare a branch under the coordinator's own name, from a time that its log does not reach back to."""
    coordinator_id = lab.bank.admin.status().coordinator_id
    gtrid = str(Gtrid(coordinator_id, 1, OLD_TIME_MS, 0))
    gid = Xid(gtrid, "accounts.gone").gid()
    with lab.bank.databases["accounts"].connect(DATABASE) as session:
        session.execute("BEGIN")
        session.execute("UPDATE account SET balance = balance WHERE id = 1")
        session.execute(f"PREPARE TRANSACTION '{gid}'")
    return gid, gtrid


def _update(lab: Lab) -> None:
    with lab.bank.databases["accounts"].connect(DATABASE) as session:
        for number in range(UPDATES):
            session.execute("UPDATE account SET balance = balance WHERE id = %s", (10 + number % 50,))


def _vacuum(lab: Lab) -> float:
    """Vacuum. Returns how many dead rows it had to keep."""
    said: list[str] = []
    with lab.bank.databases["accounts"].connect(DATABASE) as session:
        session.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
        session.execute("VACUUM (VERBOSE) account")
    found = [_NOT_REMOVABLE.search(words) for words in said]
    return float(max((int(one[1]) for one in found if one), default=0))


def _handfast(lab: Lab, *words: str) -> Any:
    """Run the real command, as an operator would, and read its answer."""
    command = python_module("coordinator", *words, "--address", lab.bank.listening("coordinator"), "--json")
    done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_S_MAX, check=False)
    return json.loads(done.stdout or "{}")


def _found(tree: Any, key: str, value: str) -> Iterator[dict[str, Any]]:
    """Every object in a JSON tree in which, or below which, the key has this value."""
    if isinstance(tree, dict):
        if value in json.dumps(tree.get(key, "")):
            yield tree
        for below in tree.values():
            yield from _found(below, key, value)
    elif isinstance(tree, list):
        for below in tree:
            yield from _found(below, key, value)


def expect(run: Run) -> Iterator[Finding]:
    kept, after = run.facts[KEPT], run.facts[KEPT_AFTER]
    yield Finding(
        kept >= UPDATES / 2 and after < kept / 4,
        "vacuum is held back as long as the orphan is there",
        f"{kept:g} dead rows kept with it, {after:g} without",
    )
    yield Finding(
        run.facts[XMIN_AGE] > 0,
        "`indoubt` shows how far the horizon lags",
        f"it lags {run.facts[XMIN_AGE]:g} transactions",
    )
    named = bool(run.facts[DOCTOR_NAMES_IT])
    yield Finding(named, "`doctor` names the orphan", "the doctor names it" if named else "the doctor does not name it")


SCENARIO = Scenario(
    name="vacuum-held-back",
    teaches="A forgotten prepared transaction holds its locks and keeps VACUUM from cleaning the whole server.",
    expected="shown by indoubt and doctor, ended by resolve; vacuum free again",
    why=(
        "A prepared transaction counts as running, for years if need be: no row version that it might see may go, in "
        "any table. The sweep ends what it can prove was never committed. This one is older than the log's memory, so "
        "the coordinator answers unknown and leaves it to a person, with everything that the person needs to know."
    ),
    rows=(("accounts", 1), ("ledger", 1)),
    act=act,
    expect=expect,
)
