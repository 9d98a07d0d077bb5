"""TLS settings towards the coordinator."""

from pathlib import Path

import grpc
import pytest

import handfast
from handfast.tls import renewed_configuration
from tests.certificates import Pki
from tests.unit.handfast.fake_coordinator import serving


@pytest.mark.parametrize("given", [{"cert_file": "c.pem"}, {"key_file": "k.pem"}], ids=["no key", "no certificate"])
def test_a_certificate_and_its_key_belong_together(given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="belong together"):
        handfast.TlsConfig(**given)


def test_a_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.pem"):
        handfast.TlsConfig(ca_file=tmp_path / "absent.pem").credentials()


def test_the_name_to_expect_is_a_channel_option() -> None:
    options = handfast.TlsConfig(server_name="coordinator.test").channel_options()
    assert options == (("grpc.ssl_target_name_override", "coordinator.test"),)


@pytest.mark.parametrize(
    "tls", [handfast.TlsConfig(), grpc.ssl_channel_credentials()], ids=["TlsConfig", "grpc's own credentials"]
)
async def test_a_client_that_wants_tls_does_not_speak_without(
    tls: handfast.TlsConfig | grpc.ChannelCredentials,
) -> None:
    async with serving() as coordinator:
        async with handfast.connect(coordinator.peer.address, tls=tls) as tm:
            with pytest.raises(handfast.CoordinatorUnavailable):
                await tm.transaction().__aenter__()
        assert coordinator.peer.asked == []


def test_a_server_is_told_of_a_change_of_its_certificates_and_of_nothing_else(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    held = pki.coordinator()
    files = held.server().files()
    files.read()
    assert renewed_configuration(files) is None
    held.replace_by(pki.coordinator())
    assert renewed_configuration(files) is not None
    assert renewed_configuration(files) is None
