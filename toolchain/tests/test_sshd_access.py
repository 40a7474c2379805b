"""Who is let in, and which hosts are believed: the SSH device and a real OpenSSH server."""

from __future__ import annotations

import getpass
from collections.abc import Iterator

import paramiko
import pytest

from toolchain.errors import InfraError
from toolchain.tests import sshd

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[sshd.Server]:
    with sshd.serving(tmp_path_factory.mktemp("sshd")) as running:
        yield running


def test_a_changed_host_key_is_refused(server, tmp_path):
    other = paramiko.ECDSAKey.generate()
    for key in (
        f"ssh-ed25519 {sshd.make_key(tmp_path / 'own')}",
        f"{other.get_name()} {other.get_base64()}",
    ):
        (tmp_path / "other").write_text(f"[127.0.0.1]:{server.port} {key}\n")
        with (
            pytest.raises(InfraError, match=r"host key has changed: expected SHA256:\S+ \(") as e,
            server.connect(known_hosts=str(tmp_path / "other")),
        ):
            pass
        assert f"ssh-keygen -R '[127.0.0.1]:{server.port}' -f {tmp_path}/other" in e.value.hint


def test_an_unknown_host_is_refused(server, tmp_path):
    (tmp_path / "other").write_text("elsewhere ssh-ed25519 AAAA\n")
    with (
        pytest.raises(InfraError, match=r"unknown host key: .*got SHA256:\S+ \(ssh-ed25519") as e,
        server.connect(known_hosts=str(tmp_path / "other")),
    ):
        pass
    assert "ssh-keyscan" in e.value.hint


def test_a_revoked_host_key_is_refused(server, tmp_path):
    key = server.known_hosts.read_text().split(" ", 1)[1]
    name = f"[127.0.0.1]:{server.port}"
    (tmp_path / "other").write_text(f"{name} {key}@revoked {name} {key}")
    with (
        pytest.raises(InfraError, match="is revoked in"),
        server.connect(known_hosts=str(tmp_path / "other")),
    ):
        pass


def test_a_host_with_two_known_keys_may_show_either(server, tmp_path):
    key = server.known_hosts.read_text().split(" ", 1)[1]
    name = f"[127.0.0.1]:{server.port}"
    (tmp_path / "other").write_text(
        f"{name} ssh-ed25519 {sshd.make_key(tmp_path / 'own')}\n{name} {key}"
    )
    with server.connect(known_hosts=str(tmp_path / "other")) as device:
        assert device.run(["true"], timeout=20).status == 0


def test_the_wrong_client_key_is_not_let_in(server, tmp_path):
    sshd.make_key(tmp_path / "own")
    text = rf"does not let the user '{getpass.getuser()}' in; keys tried: {tmp_path}/own"
    with pytest.raises(InfraError, match=text), server.connect(key=str(tmp_path / "own")):
        pass
