"""What the user's `~/.ssh/config` says is done: names, keys, jump hosts, commands, agents."""

from __future__ import annotations

import getpass
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from toolchain import devices
from toolchain.devices import ssh_config
from toolchain.devices.ssh import SshDevice
from toolchain.errors import InfraError, UserError
from toolchain.tests import dropbear, proxy, sshd

ME = getpass.getuser()


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A home folder; `config` in its .ssh is the user's file."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    folder: Path = tmp_path / "home"
    (folder / ".ssh").mkdir(parents=True)
    return folder


def _write(home: Path, text: str, name: str = "config") -> None:
    (home / ".ssh" / name).write_text(text)


def test_without_a_file_a_name_is_a_host(home):
    login = ssh_config.login("pi5")
    assert (login.host, login.port, login.user, login.alias) == ("pi5", 22, None, "")
    assert login.known_hosts == home / ".ssh/known_hosts"
    assert login.by_hand == "ssh -p 22 pi5"


def test_each_setting_counts(home):
    _write(
        home,
        """
Host pi5
    HostName pi5.lab
    Port 2222
    User pi
    IdentityFile ~/.ssh/lab
    IdentityFile %d/.ssh/%r
    IdentitiesOnly yes
    UserKnownHostsFile ~/.ssh/lab_hosts /etc/%h
    HostKeyAlias board
    ConnectTimeout 3
Host *
    User nobody
""",
    )
    login = ssh_config.login("pi5")
    assert (login.host, login.port, login.user) == ("pi5.lab", 2222, "pi")
    assert login.identities == (home / ".ssh/lab", home / ".ssh/pi")
    assert login.identities_only
    assert login.known_hosts == home / ".ssh/lab_hosts"
    assert login.more_known_hosts == (Path("/etc/pi5.lab"),)
    assert login.known_name == "board"
    assert login.connect_seconds == 3
    assert login.by_hand == "ssh pi5"


def test_the_devices_file_goes_before(home):
    _write(home, "Host pi5\n Port 1\n User a\n IdentityFile x\n ProxyCommand nc %r %h %p\n")
    login = ssh_config.login("pi5", port=5, user="b", key=Path("k"), known_hosts=Path("h"))
    assert (login.port, login.user, login.key, login.known_hosts) == (5, "b", Path("k"), Path("h"))
    assert login.proxy_command == "nc b pi5 5"


def test_jumps_are_looked_up_in_turn(home):
    _write(
        home,
        """
Host pi5
    ProxyJump me@gate:7,[::1]:9
Host gate
    HostName gate.lab
    ProxyJump door
    HostKeyAlias g
Host door
    Port 8
""",
    )
    login = ssh_config.login("pi5", key=Path("k"), known_hosts=Path("h"))
    assert [jump.shown for jump in login.jumps] == ["door:8", "me@gate.lab:7", "::1:9"]
    assert [jump.known_name for jump in login.jumps] == ["[door]:8", "g", "[::1]:9"]
    assert [jump.key for jump in login.jumps] == [None, None, None]
    assert all(jump.known_hosts == home / ".ssh/known_hosts" for jump in login.jumps)


@pytest.mark.parametrize(
    ("text", "jumps", "command"),
    [
        ("Host *\n ProxyJump gate\n", 1, ""),  # gate itself is reached directly
        ("Host pi5\n ProxyJump none\nHost *\n ProxyJump gate\n", 0, ""),
        ("Host pi5\n ProxyCommand none\nHost *\n ProxyJump gate\n", 0, ""),
        ("Host pi5\n ProxyCommand nc %h %p\nHost *\n ProxyJump gate\n", 0, "nc pi5 22"),
        ("Host pi5\n ProxyJump gate\nHost *\n ProxyCommand nc %h %p\n", 1, ""),
        ("Match host pi5\n ProxyJump gate\n", 1, ""),
        ("Host other\n ProxyJump gate\n", 0, ""),
    ],
)
def test_the_first_way_counts(home, text, jumps, command):
    _write(home, text)
    login = ssh_config.login("pi5")
    assert (len(login.jumps), login.proxy_command) == (jumps, command)


def test_files_that_are_included(home):
    (home / ".ssh/config.d").mkdir()
    _write(home, "Host pi5\n User one\nHost a\n User two\n", "config.d/lab")
    _write(home, "Include config.d/* absent\nPort 5\nHost b\n Include more\n Port 6\nHost pi5\n")
    _write(home, "User three\n", "more")
    assert ssh_config.login("pi5").user == "one"
    assert ssh_config.login("pi5").port == 5
    assert ssh_config.login("b").user == "three"
    assert ssh_config.login("c").user is None
    _write(home, "Include config\n")
    with pytest.raises(UserError, match="files include each other more than 16 deep"):
        ssh_config.login("pi5")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Host pi5\n Port x\n", "port 'x' is not a number"),
        ("Host pi5\n ConnectTimeout soon\n", "connecttimeout 'soon' is not a number"),
        ("Host pi5\n ProxyJump a:b:c\n", "'a:b:c' is no host for ProxyJump"),
        ("Host pi5\n ProxyJump b\nHost b\n ProxyJump pi5\n", "in a circle: pi5 → b → pi5"),
        ("Host pi5\n ProxyJump b,pi5\n", "in a circle: pi5 → pi5"),
        ("nonsense\n", "Unparsable line nonsense"),
        ("Host 'pi5\n", "Unparsable host 'pi5"),
        ("Host pi5\n UserKnownHostsFile 'a\n", "close the quotes"),
        ("Host pi5\n HostName a;b\n ProxyCommand nc %h\n", "'a;b' must not get into a ProxyComma"),
    ],
)
def test_a_wrong_file_is_the_users(home, text, words):
    _write(home, text)
    with pytest.raises(UserError, match=f"(?s)~/.ssh/config, for (pi5|b): .*{words}"):
        ssh_config.login("pi5")


# ---- real servers


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[sshd.Server]:
    with sshd.serving(tmp_path_factory.mktemp("target")) as running:
        yield running


@pytest.fixture(scope="module")
def gate(tmp_path_factory) -> Iterator[sshd.Server]:
    """Another server, with other keys, to jump from."""
    with sshd.serving(tmp_path_factory.mktemp("gate")) as running:
        yield running


def _host(name: str, server: sshd.Server, more: str = "", user: str = ME) -> str:
    return f"""
Host {name}
    HostName 127.0.0.1
    Port {server.port}
    User {user}
    IdentityFile {server.folder}/client_key
    IdentitiesOnly yes
    UserKnownHostsFile {server.known_hosts}
    {more}
"""


@contextmanager
def _unit(home: Path, text: str) -> Iterator[SshDevice]:
    """The device of a devices file which says only `host = "pi5"`."""
    _write(home, text)
    (home / "devices.toml").write_text('[unit]\nhost = "pi5"\n')
    unit = devices.resolve("unit", home / "devices.toml")
    with devices.connect(unit) as device:
        assert isinstance(device, SshDevice)
        yield device


def _works(device: SshDevice, folder: Path) -> None:
    (folder / "data").write_bytes(content := os.urandom(700_000))
    device.put({"data": folder / "data"})
    device.get("data", folder / "back")
    assert (folder / "back").read_bytes() == content
    assert device.run(["echo", "hello"], timeout=20).stdout == b"hello\n"


@pytest.mark.slow
def test_an_alias_is_enough(home, server, tmp_path):
    with _unit(home, _host("pi5", server)) as device:
        _works(device, tmp_path)


@pytest.mark.slow
def test_a_host_key_has_a_name_of_its_own(home, server, tmp_path):
    key = server.known_hosts.read_text().split(" ", 1)[1]
    (home / ".ssh/known_hosts").write_text(f"board {key}")
    text = _host("pi5", server, "HostKeyAlias board").replace("UserKnownHostsFile", "#")
    with _unit(home, text) as device:
        _works(device, tmp_path)
    (home / ".ssh/known_hosts").write_text(f"boards {key}")
    with pytest.raises(InfraError, match="has none for board"), _unit(home, text):
        pass


@pytest.mark.slow
def test_two_jump_hosts(home, server, gate, tmp_path):
    with dropbear.serving() as door:
        text = _host("pi5", server, "ProxyJump door,gate") + _host("gate", gate)
        with _unit(home, text + _host("door", door, user="board")) as device:
            _works(device, tmp_path)
            door.kill()
            with pytest.raises(InfraError, match="the connection was lost while running true"):
                device.run(["true"], timeout=20)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["gate", "pi5"])
def test_an_unknown_host_on_the_way_is_refused(home, server, gate, who):
    text = _host("pi5", server, "ProxyJump gate") + _host("gate", gate)
    known = {"gate": gate, "pi5": server}[who]
    text = text.replace(f"UserKnownHostsFile {known.known_hosts}", "UserKnownHostsFile none")
    with (
        pytest.raises(InfraError, match=rf"127.0.0.1:{known.port}: unknown host key") as caught,
        _unit(home, text),
    ):
        pass
    assert f"ssh {who} true" in caught.value.hint


@pytest.mark.slow
def test_a_jump_host_that_forwards_nothing(home, server, tmp_path):
    (tmp_path / "s").mkdir()
    with sshd.serving(tmp_path / "s", "AllowTcpForwarding no") as closed:
        text = _host("pi5", server, "ProxyJump gate") + _host("gate", closed)
        with (
            pytest.raises(InfraError, match=r"the jump host \S+ gives no way to it") as caught,
            _unit(home, text),
        ):
            pass
    assert "AllowTcpForwarding" in caught.value.hint


@pytest.mark.slow
def test_a_unit_that_the_jump_host_does_not_reach(home, server, gate):
    text = _host("pi5", server, "ProxyJump gate").replace(str(server.port), "1", 1)
    with (
        pytest.raises(InfraError, match=r"127.0.0.1:1: the jump host .*: Connect failed") as caught,
        _unit(home, text + _host("gate", gate)),
    ):
        pass
    assert "Try: ssh pi5" in caught.value.hint


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 30, 1500, 3000, 5000, 8000, 200_000])
def test_a_jump_host_that_is_cut_off(home, server, gate, tmp_path, place):
    with proxy.Proxy(gate.port, cut_after=place, counted="up", how="close") as link:
        text = _host("pi5", server, "ProxyJump gate")
        text += _host("gate", gate, "HostKeyAlias gate").replace(f"{gate.port}", f"{link.port}")
        key = gate.known_hosts.read_text().split(" ", 1)[1]
        (home / "known").write_text(f"gate {key}")
        text = text.replace(str(gate.known_hosts), f"{home}/known")
        with pytest.raises(InfraError, match="the connection was lost while"):
            _all(home, text, tmp_path)


def _all(home: Path, text: str, folder: Path) -> None:
    with _unit(home, text) as device:
        _works(device, folder)


@pytest.mark.slow
def test_a_proxy_command(home, server, gate, tmp_path):
    _write(home, _host("gate", gate), "gate")
    command = f"ProxyCommand ssh -F {home}/.ssh/gate -W %h:%p gate"
    with _unit(home, _host("pi5", server, command)) as device:
        _works(device, tmp_path)
    left = subprocess.run(["pgrep", "-f", f"{home}/.ssh/gate"], capture_output=True, check=False)
    assert left.stdout == b""


@pytest.mark.slow
def test_a_proxy_command_that_fails_keeps_its_secrets(home, server):
    command = "ProxyCommand sh -c 'exit 3' token=hunter2"
    with (
        pytest.raises(InfraError, match="the connection was lost while logging in") as caught,
        _unit(home, _host("pi5", server, command)),
    ):
        pass
    assert "hunter2" not in str(caught.value)
    assert "Try: ssh pi5" in caught.value.hint


@pytest.fixture
def agent(home, tmp_path, monkeypatch) -> Iterator[None]:
    """A real ssh-agent, still empty."""
    assert home
    socket = tmp_path / "agent"
    with subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL
    ) as process:
        while not socket.exists():
            assert process.poll() is None
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        yield
        process.terminate()


def _add(*keys: Path) -> None:
    subprocess.run(["ssh-add", "-q", *map(str, keys)], check=True, stderr=subprocess.DEVNULL)


@pytest.mark.slow
@pytest.mark.usefixtures("agent")
def test_a_key_of_the_agent(home, server, tmp_path):
    text = _host("pi5", server).replace("IdentityFile", "#").replace("IdentitiesOnly", "#")
    with pytest.raises(InfraError, match="keys tried: none") as caught, _unit(home, text):
        pass
    assert "ssh-keygen" in caught.value.hint
    _add(server.folder / "client_key")
    with _unit(home, text) as device:
        _works(device, tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("agent")
def test_one_of_many_keys_of_the_agent(home, server, tmp_path):
    """The server ends the connection after six keys, so that the right one has to be named."""
    others = [tmp_path / f"other{number}" for number in range(7)]
    for other in others:
        sshd.make_key(other)
    _add(*others, server.folder / "client_key")
    public = server.folder / "client_key.pub"
    text = _host("pi5", server).replace(f"{server.folder}/client_key", str(public))
    with _unit(home, text) as device:
        _works(device, tmp_path)
    text = text.replace("IdentitiesOnly", "#")
    with (
        pytest.raises(InfraError, match=r"ended the connection at key \d of 8; keys tried") as c,
        _unit(home, text),
    ):
        pass
    assert "too many keys" in c.value.hint


@pytest.mark.slow
def test_a_key_that_cannot_be_used_is_named(home, server, tmp_path):
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "hunter2", "-f", str(tmp_path / "locked")]
    subprocess.run(command, check=True)
    key = f"{server.folder}/client_key"
    text = _host("pi5", server).replace(key, f"{tmp_path}/locked\n IdentityFile {tmp_path}/absent")
    with pytest.raises(InfraError) as caught, _unit(home, text):
        pass
    assert f"{tmp_path}/locked: the key is protected by a passphrase" in str(caught.value)
    assert f"{tmp_path}/absent: the key cannot be read: No such file" in str(caught.value)
    assert "hunter2" not in str(caught.value)
