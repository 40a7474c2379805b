"""Units: how they are named, and how one is reached that may not be there."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import paramiko
import pytest

from toolchain import devices
from toolchain.devices import image, login, qemu
from toolchain.devices.ssh import connect as ssh_connect
from toolchain.errors import InfraError, UserError


def test_a_board_is_named_by_its_cpu():
    unit = devices.resolve("qemu:cortex-a72", None)
    assert (unit.driver, unit.cpu, unit.name) == ("qemu", "cortex-a72", "qemu:cortex-a72")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("qemu:cortex-72", "unknown CPU model 'cortex-72'.*did you mean 'cortex-a72'"),
        ("qemu:", "unknown CPU model ''.*cortex-a72"),
        ("qemu:max", "emulation of SME is at fault.*cortex-a53"),
        ("qmeu:cortex-a72", "unknown kind of device 'qmeu'.*qemu:cortex-a72"),
        ("pi5", "no devices file is given that could list 'pi5'.*devices=PATH"),
    ],
)
def test_a_wrong_device_is_a_users_error(spec, words):
    with pytest.raises(UserError, match=f"(?s)device={spec}.*{words}"):
        devices.resolve(spec, None)


@pytest.fixture
def lab(tmp_path):
    """A function that writes a devices file."""
    (tmp_path / "key").write_text("")
    (tmp_path / "known").write_text("")

    def write(text: str) -> Path:
        path: Path = tmp_path / "devices.toml"
        path.write_text(text)
        return path

    return write


def test_a_unit_of_the_devices_file(lab, tmp_path):
    path = lab('[pi5]\nhost = "pi5.lab"\nuser = "pi"\nkey = "key"\nknown_hosts = "known"\n')
    unit = devices.resolve("pi5", path)
    assert (unit.driver, unit.host, unit.port, unit.user) == ("ssh", "pi5.lab", 22, "pi")
    assert unit.key == str(tmp_path / "key")
    assert unit.known_hosts == str(tmp_path / "known")


def test_paths_of_a_unit_may_be_in_the_home_folder(lab, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home/id").write_text("")
    assert devices.resolve("a", lab('[a]\nhost="h"\nkey="~/id"\n')).key == f"{tmp_path}/home/id"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[pi4]\nhost = "h"\n', "no unit 'pi5'.*did you mean 'pi4'"),
        ("", "no unit 'pi5'.*there are none"),
        ('[pi5]\nuser = "pi"\n', "the key 'host' is missing"),
        ('[pi5]\nhots = "h"\n', "unknown key 'hots'.*did you mean 'host'"),
        ('[pi5]\nhost = "h"\nport = "22"\n', "port: '22' should be a valid integer"),
        ('[pi5]\nhost = "h"\nport = 70000\n', "port: 70000"),
        ('[pi5]\nhost = "h"\nkey = "none"\n', r"\[pi5\].key: no such file.*relative to the"),
        ('[pi5]\nhost = "h"\nknown_hosts = "none"\n', "known_hosts: no such file"),
        (
            '[pi5]\nhost = "h"\ndriver = "smoke"\n',
            "'smoke' should be 'qemu', 'ssh', 'local' or 'labgrid'",
        ),
        ('[pi5]\ndriver = "qemu"\ncpu = "max"\n', "SME"),
        ('[pi5]\nname = "x"\nhost = "h"\n', "unknown key 'name'"),
        ("pi5 = 3\n", "is not a table"),
        ("[pi5\n", "is not TOML"),
    ],
)
def test_a_wrong_devices_file_is_a_users_error(lab, text, words):
    with pytest.raises(UserError, match=f"(?s)(pi5|devices.toml).*{words}"):
        devices.resolve("pi5", lab(text))


def test_a_devices_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"(?s)none\.toml, and there is no such.*devices=PATH"):
        devices.resolve("pi5", tmp_path / "none.toml")


def test_resolving_imports_nothing_heavy():
    code = "import sys; from toolchain import devices; devices.resolve('qemu:cortex-a72', None)\n"
    code += "print([m for m in ('paramiko', 'elftools', 'cryptography', 'torch') "
    code += "if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- reaching one


def test_a_port_where_nobody_listens(lab):
    unit = devices.resolve("a", lab('[a]\nhost="127.0.0.1"\nport=1\nknown_hosts="known"\n'))
    with (
        pytest.raises(InfraError, match=r"127.0.0.1:1: .*cannot be reached: Connection refused"),
        ssh_connect(unit),
    ):
        pass


def test_a_name_that_does_not_resolve(lab):
    unit = devices.resolve("a", lab('[a]\nhost="nothing.invalid"\nknown_hosts="known"\n'))
    with pytest.raises(InfraError, match="cannot be reached"), ssh_connect(unit):
        pass


@pytest.fixture
def listener():
    """A server on a free port that takes one connection, and what it then says."""
    said: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as stack:

        def serve() -> None:
            accepted = stack.enter_context(server.accept()[0])
            accepted.sendall(b"".join(said))

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1], said
        thread.join()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"", "while logging in .Error reading SSH protocol banner"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n" * 200, "logging in"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "logging in"),
    ],
    ids=["silent", "no SSH", "silent after the banner"],
)
def test_a_server_that_does_not_speak_ends_in_time(lab, listener, monkeypatch, said, words):
    monkeypatch.setattr(login, "ANSWER_SECONDS", 0.5)
    port, says = listener
    says.append(said)
    text = f'[a]\nhost="127.0.0.1"\nport={port}\nuser="u"\nknown_hosts="known"\n'
    unit = devices.resolve("a", lab(text))
    start = time.monotonic()
    with pytest.raises(InfraError, match=words), ssh_connect(unit):
        pass
    assert time.monotonic() - start < 5


def test_a_host_is_asked_for_the_kind_of_key_that_is_known(lab, tmp_path):
    """It would show its Ed25519 key first, which nobody has seen yet."""
    keys = [_host_key(tmp_path / kind, kind) for kind in ("ed25519", "ecdsa")]
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as stack:
        port = server.getsockname()[1]

        def serve() -> None:
            transport = paramiko.Transport(server.accept()[0])
            stack.callback(transport.close)
            for key in keys:
                transport.add_server_key(key)
            transport.start_server(event=threading.Event(), server=paramiko.ServerInterface())

        thread = threading.Thread(target=serve)
        thread.start()
        known = f"[127.0.0.1]:{port} {keys[1].get_name()} {keys[1].get_base64()}\n"
        (tmp_path / "known").write_text(known)
        text = f'[a]\nhost="127.0.0.1"\nport={port}\nuser="u"\nkey="ed25519"\n'
        unit = devices.resolve("a", lab(text + 'known_hosts="known"\n'))
        with pytest.raises(InfraError, match="does not let the user 'u' in"), ssh_connect(unit):
            pass
        thread.join()


def _host_key(path: Path, kind: str) -> paramiko.PKey:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", path], check=True)
    return paramiko.PKey.from_path(path)


@pytest.mark.parametrize("content", [b"", b"not a key", b"-----BEGIN OPENSSH PRIVATE KEY-----\n"])
def test_a_file_that_is_no_key(lab, tmp_path, content):
    (tmp_path / "key").write_bytes(content)
    unit = devices.resolve("a", lab('[a]\nhost="127.0.0.1"\nkey="key"\nknown_hosts="known"\n'))
    with pytest.raises(UserError, match="key: is not a private SSH key"), ssh_connect(unit):
        pass


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="no ssh-keygen on this machine")
def test_a_key_with_a_passphrase(lab, tmp_path):
    (tmp_path / "key").unlink()
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", tmp_path / "key"]
    subprocess.run(command, check=True)
    unit = devices.resolve("a", lab('[a]\nhost="127.0.0.1"\nkey="key"\nknown_hosts="known"\n'))
    with pytest.raises(UserError, match=r"(?s)passphrase.*ssh-add"), ssh_connect(unit):
        pass


def test_qemu_that_is_not_installed(monkeypatch, tmp_path):
    for tool in ("setpriv", "sh"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or "")
    monkeypatch.setenv("PATH", str(tmp_path))
    made = image.Image(tmp_path, tmp_path, tmp_path, tmp_path, tmp_path, "")
    with pytest.raises(UserError, match="qemu-system-aarch64' is not installed") as caught:
        qemu.Board("cortex-a72", made).__enter__()
    assert "apt-get install qemu-system-arm" in caught.value.hint
