"""Who a certificate's names say that its holder is."""

import pytest

from handfast.identity import Identity, identity_of_names, identity_of_peer

ACCOUNTS = frozenset({"accounts"})


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("spiffe://prod.example/participant/accounts", {"resources": ACCOUNTS}),
        ("spiffe://prod.example/client/billing", {"client": True}),
        ("spiffe://prod.example/admin/alice", {"admin": True}),
        ("spiffe://prod.example/coordinator", {"coordinator": True}),
        ("spiffe://prod.example/coordinator/tm-2", {"coordinator": True}),
        # What only looks like a role is a client by that name.
        ("spiffe://prod.example/ns/admin/alice", {"client": True}),
        ("spiffe://prod.example/administrator/alice", {"client": True}),
        ("https://prod.example/admin/alice", {"client": True}),
    ],
)
def test_a_uri_tells_the_role(name: str, identity: dict[str, object]) -> None:
    assert identity_of_names([name], []) == Identity(name, **identity)  # type: ignore[arg-type]  # one of its fields


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("accounts.participant.handfast", {"resources": ACCOUNTS}),
        ("billing.client.handfast", {"client": True}),
        ("alice.admin.handfast", {"admin": True}),
        ("coordinator.handfast", {"coordinator": True}),
        ("alice.admin.handfast.example", {"client": True}),
        ("mallory.alice.admin.handfast", {"client": True}),
    ],
)
def test_a_dns_name_tells_the_role(name: str, identity: dict[str, object]) -> None:
    assert identity_of_names([], [name]) == Identity(name, **identity)  # type: ignore[arg-type]  # one of its fields


def test_several_names_add_up_and_the_first_role_is_what_it_is_called() -> None:
    found = identity_of_names(
        ["spiffe://d/participant/accounts", "spiffe://d/participant/ledger", "spiffe://d/client/billing"],
        ["accounts.internal"],
    )
    assert found == Identity("spiffe://d/participant/accounts", frozenset({"accounts", "ledger"}), client=True)


def test_without_names_there_is_no_identity() -> None:
    assert identity_of_names([], []) is None
    assert identity_of_peer({"transport_security_type": [b"ssl"]}) is None


def test_a_peer_is_read_from_what_grpc_tells_of_its_certificate() -> None:
    shown = {"peer_uri": [b"spiffe://d/admin/alice"], "peer_dns": [b"\xff"], "x509_common_name": [b"root"]}
    assert identity_of_peer(shown) == Identity("spiffe://d/admin/alice", admin=True)
