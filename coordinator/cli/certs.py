"""`handfast certs init`: a private authority, and a certificate for each process and person.

Nothing that is there is ever written over: run again with more names, the same authority signs what is missing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Group
from rich.text import Text

from coordinator.cli.about import Json
from coordinator.cli.authority import Authority, Issued
from coordinator.cli.exit_codes import EPILOGUE, Exit
from coordinator.cli.output import console, print_json
from handfast.catalog import HandfastFault
from handfast.identity import TRUST_DOMAIN
from handfast.xid import MalformedName, check_resource

COORDINATOR_HOSTS = ("localhost", "127.0.0.1")
AUTHORITY_DAYS = 3650
SECRET, PUBLIC = 0o600, 0o644

_PERSON_OR_PROGRAM = re.compile(r"[A-Za-z0-9_-]{1,63}")
_HOST = re.compile(r"[A-Za-z0-9._:*-]{1,253}")

certs = App(name="certs", help="Make certificates for mutual TLS.", help_epilogue=EPILOGUE)


@dataclass(frozen=True)
class Holder:
    """Who gets a certificate.

    Args:
        role: ``coordinator``, ``participant``, ``client`` or ``admin``.
        name: which one; empty for the coordinator.
        hosts: the hosts under which its server is reached.
    """

    role: str
    name: str
    hosts: tuple[str, ...] = ()

    @property
    def file_stem(self) -> str:
        """What its files are called, without the ending."""
        return f"{self.role}-{self.name}" if self.name else self.role

    @property
    def uri(self) -> str:
        """Its name in SPIFFE's form."""
        return "/".join(part for part in (f"spiffe://{TRUST_DOMAIN}", self.role, self.name) if part)

    @property
    def dns_names(self) -> tuple[str, ...]:
        """Its name as a server's, and the hosts."""
        own = ".".join(part for part in (self.name, self.role, "handfast") if part)
        return (own, *self.hosts) if self.role in ("coordinator", "participant") else ()


@dataclass(frozen=True)
class Made:
    """A certificate that is there now.

    Args:
        role: whose.
        name: whose.
        certificate: its file.
        key: the file of its key.
        new: whether it was made just now.
    """

    role: str
    name: str
    certificate: str
    key: str
    new: bool


def _several(help: str) -> Parameter:
    return Parameter(help=help, negative="", show_default=False)


@certs.command(name="init")
def init_command(
    folder: Annotated[Path, Parameter(help="Where the files go; made when it is not there.")],
    /,
    *,
    participant: Annotated[
        list[str] | None,
        _several("A resource whose processes get a certificate, as NAME or NAME=HOST,HOST; may be repeated."),
    ] = None,
    client: Annotated[list[str] | None, _several("An application; may be repeated.")] = None,
    admin: Annotated[list[str] | None, _several("An operator; may be repeated. Without any: admin.")] = None,
    host: Annotated[
        list[str] | None,
        _several("A host name or IP address of the coordinator, beside localhost and 127.0.0.1; may be repeated."),
    ] = None,
    days: Annotated[int, Parameter(help="For how long the certificates are valid, in days.")] = 365,
    json: Json = False,
) -> int:
    """Make a private authority, and certificates for coordinator, participants, clients and operators.

    Nothing is written over: run again with more names, the authority that is there signs what is missing. Keys can be
    read by you alone. The authority's key, ca.key, makes anybody into anything: move it where no service runs.
    """
    holders = list(_holders(participant or [], client or [], admin or ["admin"], host or []))
    if days < 1:
        raise HandfastFault("OPTIONS_UNFIT", problem="--days is at least 1")
    try:
        made = make_certificates(folder, holders, datetime.now(UTC), timedelta(days=days))
    except (OSError, ValueError) as problem:
        raise HandfastFault("CERTIFICATES_UNUSABLE", folder=folder, problem=problem) from problem
    if json:
        print_json({"authority": str(folder / "ca.crt"), "certificates": [asdict(one) for one in made]})
    else:
        console().print(_shown(folder, made), soft_wrap=True)
    return Exit.OK


def _holders(
    participants: Sequence[str], clients: Sequence[str], admins: Sequence[str], hosts: Sequence[str]
) -> Iterator[Holder]:
    """Who gets a certificate, checked before anything is written.

    Raises:
        HandfastFault: OPTIONS_UNFIT.
    """
    yield Holder("coordinator", "", (*COORDINATOR_HOSTS, *map(_checked_host, hosts)))
    for given in participants:
        name, _, its_hosts = given.partition("=")
        try:
            check_resource(name)
        except MalformedName:
            raise HandfastFault("OPTIONS_UNFIT", problem=f"{name!r} is not a resource name") from None
        yield Holder("participant", name, tuple(_checked_host(one) for one in its_hosts.split(",") if one))
    for role, names in (("client", clients), ("admin", admins)):
        for name in names:
            if not _PERSON_OR_PROGRAM.fullmatch(name):
                raise HandfastFault("OPTIONS_UNFIT", problem=f"{name!r} is not letters, digits, - and _")
            yield Holder(role, name)


def _checked_host(host: str) -> str:
    if not _HOST.fullmatch(host):
        raise HandfastFault("OPTIONS_UNFIT", problem=f"{host!r} is no host name or IP address")
    return host


def make_certificates(folder: Path, holders: Sequence[Holder], now: datetime, lifetime: timedelta) -> list[Made]:
    """Make what is missing in a folder.

    Args:
        folder: where.
        holders: who needs a certificate.
        now: the time, with its zone.
        lifetime: how long new certificates are valid.

    Raises:
        OSError: the folder can't be written.
        ValueError: half a pair is there, or the authority there can't be used.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    there = _read_pair(folder, "ca")
    if there is None:
        authority = Authority.create("Handfast private authority", now, timedelta(days=AUTHORITY_DAYS))
        _write_pair(folder, "ca", authority.pems)
    else:
        authority = Authority.load(there)
    return [_made(folder, authority, holder, now, lifetime) for holder in holders]


def _made(folder: Path, authority: Authority, holder: Holder, now: datetime, lifetime: timedelta) -> Made:
    stem = holder.file_stem
    new = _read_pair(folder, stem) is None
    if new:
        common_name = stem.replace("-", " ", 1)
        _write_pair(folder, stem, authority.issue(common_name, [holder.uri], holder.dns_names, now, lifetime))
    return Made(holder.role, holder.name, str(folder / f"{stem}.crt"), str(folder / f"{stem}.key"), new)


def _read_pair(folder: Path, stem: str) -> Issued | None:
    """A certificate and its key; None when neither is there.

    Raises:
        ValueError: one is there without the other.
    """
    certificate, key = folder / f"{stem}.crt", folder / f"{stem}.key"
    if not certificate.exists() and not key.exists():
        return None
    for file in (certificate, key):
        if not file.exists():
            raise ValueError(f"{file} is missing beside its other half")
    return Issued(certificate.read_bytes(), key.read_bytes())


def _write_pair(folder: Path, stem: str, issued: Issued) -> None:
    for file, content, mode in (
        (folder / f"{stem}.key", issued.key, SECRET),
        (folder / f"{stem}.crt", issued.certificate, PUBLIC),
    ):
        # O_EXCL: whoever made the file meanwhile keeps it. The mode counts from the first byte on.
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as opened:
            opened.write(content)


def _shown(folder: Path, made: Sequence[Made]) -> Group:
    """What there is now, and what to put where."""
    ca = folder / "ca.crt"
    lines = [Text(f"The authority is {ca}. Give it to everybody; keep {folder / 'ca.key'} where no service runs.")]
    for one in made:
        who = f"{one.role} {one.name}".strip()
        lines.append(Text.assemble(("\n" + who, "bold"), f"  {one.certificate}{'' if one.new else '  (was there)'}"))
        lines += [Text(f"  {line}") for line in _use(one, ca)]
    return Group(*lines)


def _use(one: Made, ca: Path) -> list[str]:
    match one.role:
        case "coordinator":
            mine = f"--tls-cert {one.certificate} --tls-key {one.key}"
            return [f"handfast serve {mine} --tls-client-ca {ca} --participant-ca {ca}"]
        case "participant":
            return [
                f'credentials=TlsConfig("{ca}", "{one.certificate}", "{one.key}", "coordinator.handfast")',
                f'server.add_secure_port(…, ServerTls("{one.certificate}", "{one.key}", "{ca}").credentials())',
            ]
        case "client":
            return [f'handfast.connect(…, tls=handfast.TlsConfig("{ca}", "{one.certificate}", "{one.key}"))']
    return [f"handfast status --tls-ca {ca} --client-cert {one.certificate} --client-key {one.key}"]
