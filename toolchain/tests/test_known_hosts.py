"""known_hosts files are read as OpenSSH reads them."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from toolchain.devices import known_hosts

NAME = "[board.lab]:2222"


@pytest.mark.parametrize(
    ("line", "listed"),
    [
        (f"{NAME} ssh-ed25519 AAAA", True),
        (f"other,{NAME} ssh-ed25519 AAAA comment", True),
        ("[*.lab]:2222 ssh-ed25519 AAAA", True),
        (f"*,!{NAME} ssh-ed25519 AAAA", False),
        ("board.lab ssh-ed25519 AAAA", False),
        (f"# {NAME} ssh-ed25519 AAAA", False),
        (f"@cert-authority {NAME} ssh-ed25519 AAAA", False),
        ("garbage", False),
    ],
)
def test_known_hosts_are_read_as_ssh_reads_them(line, listed):
    good, revoked = known_hosts.known_keys(line, NAME)
    assert good == ({"AAAA": "ssh-ed25519"} if listed else {})
    assert revoked == set()


def test_a_revoked_key_is_told_apart():
    good, revoked = known_hosts.known_keys(f"@revoked {NAME} ssh-ed25519 AAAA", NAME)
    assert (good, revoked) == ({}, {"AAAA"})


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="no ssh-keygen on this machine")
def test_hashed_hosts_and_fingerprints_agree_with_ssh_keygen(tmp_path):
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    kind, public = (tmp_path / "key.pub").read_text().split()[:2]
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{NAME} {kind} {public}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", hosts], check=True, capture_output=True)
    assert hosts.read_text().startswith("|1|")
    assert known_hosts.known_keys(hosts.read_text(), NAME)[0] == {public: kind}
    assert known_hosts.known_keys(hosts.read_text(), "other")[0] == {}
    listed = subprocess.run(["ssh-keygen", "-lf", key], capture_output=True, text=True, check=True)
    assert known_hosts.fingerprint(public) == listed.stdout.split()[1]
