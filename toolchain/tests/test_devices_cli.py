"""Devices at the command line, on this host and on a real SSH server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from toolchain import bundle, devices
from toolchain.devices import boards, commands, health, lease
from toolchain.errors import InfraError, UserError
from toolchain.tests import sshd

ROOT = Path(__file__).parents[2]


@dataclass
class Said:
    status: int
    out: str
    err: str


@dataclass
class Shell:
    """The command line, in a folder with a devices file that lists `bench` and `away`."""

    folder: Path
    environment: dict[str, str]

    def __call__(self, *words: str) -> Said:
        done = subprocess.run(
            [sys.executable, "-m", "toolchain.devices", *words],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def shell(tmp_path_factory) -> Iterator[Shell]:
    folder = tmp_path_factory.mktemp("cli")
    settings = f"SetEnv HOME={folder}/home TMPDIR={folder}/tmp SLIPWAY_LEASE={folder}/tmp/lease"
    with sshd.serving(folder, settings) as server:
        with server.devices.open("a") as file:
            # A port that nobody listens on, and that nobody is given.
            file.write("\n[away]\nhost = '127.0.0.1'\nport = 9\ntarget = 'arm64'\ntags = ['x']\n")
        environment = {"SLIPWAY_CACHE": str(folder / "cache"), "TMPDIR": str(folder / "tmp")}
        yield Shell(folder, environment | {"SLIPWAY_LEASE": f"{folder}/tmp/lease"})


def test_help_names_all_commands(shell):
    said = shell("--help")
    assert said.status == 0
    for command in [
        *["list", "status", "doctor", "lease", "release", "reset", "shell"],
        "devices=PATH",
    ]:
        assert command in said.out
    for command in ["push", "run", "rollback", "board"]:
        assert command in said.out
    assert shell("lease", "--help").status == 0
    assert shell().status == 2


@pytest.mark.parametrize(
    ("words", "text", "hint"),
    [
        (["lst"], "unknown command 'lst'", "did you mean 'list'?"),
        (["status", "bnch"], "there is no unit 'bnch'", "did you mean 'bench'?"),
        (["list", "devices=none.toml"], "there is no such file", ""),
        (["doctor", "--wrong"], "unrecognized arguments: --wrong", "--help"),
        (["lease", "bench"], "give either --for SECONDS or -- COMMAND", "lease bench --"),
        (["lease", "bench", "--for", "-3"], "'-3' is no number of seconds from 1 to 1e6", "--help"),
        (["lease", "bench", "--ttl", "0.5", "--", "true"], "'0.5' is no number", "--help"),
        (["lease", "bench", "--wait", "nan", "--for", "5"], "'nan' is no number", "--help"),
        (["run", "bench", "--timeout", "nan"], "'nan' is no number of seconds", "--help"),
        (["release", "bench"], "no token is given", "--force"),
        (["reset", "qemu:cortex-a72"], "nothing of it would be left", "board up cortex-a72"),
        (["push", "bench", "none.tar"], "there is no such bundle", ""),
        (["board", "up", "cortex-a73"], "unknown CPU model 'cortex-a73'", "cortex-a72"),
        (["board", "down", "x"], "no board 'x' was started here", "there are none"),
    ],
)
def test_what_is_wrong_is_told(shell, monkeypatch, words, text, hint):
    monkeypatch.chdir(shell.folder)
    for name, value in shell.environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as told:
        commands.main(words)
    assert text in str(told.value)
    assert hint in told.value.hint


@pytest.mark.slow
def test_units_are_listed(shell):
    said = shell("list")
    assert said.status == 0
    heads, bench, away = (line.split() for line in said.out.splitlines())
    assert heads == ["NAME", "TARGET", "DRIVER", "PLACE", "TAGS"]
    assert bench[0] == "bench"
    assert away == ["away", "arm64", "ssh", "127.0.0.1:9", "x"]
    assert "no units" in shell("list", f"devices={os.devnull}").out


@pytest.mark.slow
def test_the_doctor_tells_the_well_from_the_ill(shell):
    said = shell("doctor", "bench")
    assert (said.status, said.err) == (0, "")
    assert said.out.splitlines()[1].split()[:2] == ["bench", "good"]
    said = shell("doctor", "--json")
    assert said.status == 3
    bench, away = json.loads(said.out)
    assert bench["healthy"]
    assert bench["facts"]["machine"]
    assert int(bench["facts"]["free"]) > 0
    assert (away["healthy"], away["facts"]) == (False, {})
    assert "the unit cannot be reached" in away["reasons"][0]
    assert "away: " in shell("doctor").out


@pytest.mark.slow
def test_leases_from_the_command_line(shell):
    token = shell("lease", "bench", "--for", "60", "--owner", "the tester").out.strip()
    assert "the tester, for " in shell("status", "bench").out
    refused = shell("lease", "bench", "--", "true")
    assert refused.status == 3
    assert "leased by the tester" in refused.err
    assert shell("release", "bench", "--token", "1-ab").status == 3
    assert shell("release", "bench", "--token", token).status == 0
    inner = [sys.executable, "-m", "toolchain.devices", "lease", "bench", "--", "sh", "-c"]
    told = shell("lease", "bench", "--", *inner, "echo $SLIPWAY_TOKEN; exit 7")
    assert told.status == 7
    assert told.out.strip(), "what works under a lease joins it"
    assert shell("status", "bench").out.splitlines()[1].split() == ["bench", "free"]
    assert shell("lease", "bench", "--for", "60").status == 0
    assert shell("release", "bench", "--force").status == 0
    assert shell("lease", "bench", "--", "/no/such/program").status == 2


@pytest.mark.slow
def test_status_tells_who_cannot_be_asked(shell):
    said = shell("status")
    assert said.status == 3
    assert "cannot be asked: the unit cannot be reached" in said.out


@pytest.mark.slow
def test_a_command_runs_there(shell):
    said = shell("shell", "bench", "sh", "-c", 'echo "$0:$HOME"; exit 5', "a b")
    assert (said.status, said.out) == (5, f"a b:{shell.folder}/home\n")
    assert shell("shell", "local", "echo", "-n", "x").out == "x"


@pytest.mark.slow
def test_reset_tells_what_it_did(shell):
    with devices.connect(devices.resolve("bench", shell.folder / "devices.toml")) as device:
        lease.take(device)  # type: ignore[arg-type]
        said = shell("reset", "bench")
        assert said.status == 0
        assert f"removed {device.work}" in said.out  # type: ignore[attr-defined]
        assert lease.status(device) is None  # type: ignore[arg-type]


def test_a_unit_that_does_not_answer_is_not_waited_for(monkeypatch):
    def hanging(_unit):
        import time

        time.sleep(30)

    monkeypatch.setattr(devices, "connect", hanging)
    found = health.probe(devices.resolve("local"), timeout=0.2)
    assert (found.healthy, found.reasons) == (False, ("no answer within 0.2 s",))


def test_what_makes_a_unit_ill():
    facts = {
        "lacks": "flock",
        "clock": "1000",
        "free": "1000000",
        "memory_available": "1000000",
        "perf_event_paranoid": "3",
        "machine": "aarch64",
    }
    reasons = list(health._of_facts(dict(facts), emulated=True))
    assert reasons[0] == "there is no flock: install util-linux or busybox"
    assert reasons[1].endswith(" s behind")
    assert reasons[2:] == [
        "only 1 MB of space free, not 67",
        "only 1 MB of memory free, not 67",
        "instructions cannot be counted: perf_event_paranoid is 3",
    ]
    assert len(list(health._of_facts(dict(facts), emulated=False))) == 4
    taken = {"load_1m": 0.0, "temperature_mc": 81_000, "limits": 4}
    assert list(health._of_guards(dict(facts), taken)) == [
        "it is hot: 81 °C",
        "its firmware limits it now (get_throttled: 0x4)",
    ]
    calm = {"load_1m": 0.0, "temperature_mc": 60_000, "limits": 0}
    assert list(health._of_guards(dict(facts), calm)) == []


def test_a_defect_of_ours_is_no_illness(monkeypatch):
    def broken(_unit):
        raise KeyError("a defect")

    monkeypatch.setattr(health, "_probed", broken)
    with pytest.raises(KeyError):
        health.probe(devices.resolve("local"))


def test_a_unit_that_loses_what_it_stores_is_ill(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def damaged(_device):
        raise InfraError("what was written there does not come back")

    monkeypatch.setattr(health, "_write_and_read", damaged)
    found = health.probe(devices.resolve("local"))
    assert found.reasons == ("what was written there does not come back",)


@pytest.mark.board
def test_boards_from_the_command_line(shell):
    from toolchain.devices import image

    made = image.ensure(lambda _: None).folder.parent
    (shell.folder / "cache").mkdir(exist_ok=True)
    (shell.folder / "cache/boards").symlink_to(made)
    try:
        said = shell("board", "up", "cortex-a53", "--name", "emu")
        assert said.status == 0, said.err
        assert "emu is up: cortex-a53, port " in said.out
        line = shell("board", "list").out.splitlines()[1].split()
        assert line[:3] == ["emu", "up", "cortex-a53"]
        assert "emu   good" in shell("doctor", "emu").out.replace("    ", "   ")
        assert shell("shell", "emu", "uname", "-m").out == "aarch64\n"
        assert shell("lease", "emu", "--for", "60").status == 0
        refused = shell("board", "down", "emu")
        assert refused.status == 2
        assert "is leased by" in refused.err
    finally:
        assert shell("board", "down", "emu", "--force").status == 0
    assert shell("board", "list").out == "no board is up\n"
    assert boards.root() != shell.folder / "cache/running"


@pytest.mark.slow
def test_bundles_are_pushed_run_and_rolled_back(shell, tmp_path):
    machine = json.loads(shell("doctor", "bench", "--json").out)[0]["facts"]
    runtime = tmp_path / "runtime.json"
    runtime.write_text(json.dumps({"digest": "0" * 64, "files": {}}))
    for word in ("one", "two"):
        files = {"runner": f'#!/bin/sh\necho {word} "$@"\n'.encode(), "program.pte": b"program"}
        manifest = {
            "schema": bundle.SCHEMA,
            **dict.fromkeys(("variant", "backend", "target", "scheme"), "x"),
            "recipe": "tiny",
            "arch": machine["machine"],
            "abi_floor": {"glibc": "2.17"},
            "floor": [],
            "program": "program.pte",
            "load_libraries": [],
            "needs": [],
            "environment": {},
            "runtime": {"name": "none", "digest": "0" * 64, "apart": False, "bytes": 0},
            "files": {
                name: {"bytes": len(data), "sha256": bundle.digest(data)}
                for name, data in files.items()
            },
        }
        (tmp_path / f"{word}.tar").write_bytes(bundle.write(files, manifest))
    nothing = shell("run", "bench")
    assert nothing.status == 3
    assert "no bundle was pushed there" in nothing.err
    for word in ("one", "two"):
        pushed = shell("push", "bench", str(tmp_path / f"{word}.tar"), "--runtime", str(runtime))
        assert pushed.status == 0, pushed.err
        assert " is current in tiny; " in pushed.out
        said = shell("run", "bench")
        assert said.out.startswith(f"{word} --program program.pte ")
        assert shell("run", "bench", "--", "--other", "a b").out == f"{word} --other a b\n"
    assert "tiny (tiny x x x)" in shell("status", "bench").out
    current = shell("status", "bench").out.rpartition("tiny (tiny x x x) ")[2].strip()
    assert f"{current} is current in tiny; " in pushed.out
    assert "is current in tiny again" in shell("rollback", "bench").out
    assert shell("run", "bench", "--slot", "tiny").out.startswith("one ")
    assert "did you mean 'tiny'?" in shell("run", "bench", "--slot", "tinny").err
    for manifest in shell.folder.glob("home/.cache/slipway/trees/*/manifest.json"):
        manifest.chmod(0o600)
        manifest.write_text("damaged")
    damaged = shell("run", "bench")
    assert damaged.status == 3
    assert "the manifest of the bundle in 'tiny' is damaged" in damaged.err
