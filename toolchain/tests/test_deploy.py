"""Bundles on a device: the old one or the new one, whole, whatever happens in between."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from toolchain import bundle as bundles
from toolchain import deployment
from toolchain.bundle import Bundle
from toolchain.devices import deploy, lease_scripts, pruning, scripts, slot_scripts, store, trees
from toolchain.devices.deploy import Keep
from toolchain.devices.listing import Entry
from toolchain.devices.unix import UnixDevice
from toolchain.errors import InfraError, UserError
from toolchain.tests import proxy, sshd, stores
from toolchain.tests.test_measure import packed

RUNNER = "#!/bin/sh\ncat program.pte lib/one.so\n"
PROGRAM = os.urandom(1 << 20)
LIBRARY = os.urandom(3 << 20)


@dataclass(frozen=True)
class Made:
    """A bundle, and the `runtime.json` of the libraries that it needs."""

    bundle: Bundle
    runtime: Path


@pytest.fixture
def make(tmp_path) -> Callable[..., Made]:
    """A bundle whose runner prints its program and its library; apart: which is shipped apart."""

    def made(program: bytes = PROGRAM, library: bytes = LIBRARY, apart: bool = True) -> Made:
        folder = tmp_path / hashlib.sha256(program + library + bytes([apart])).hexdigest()[:12]
        (folder / "lib").mkdir(parents=True, exist_ok=True)
        (folder / "lib/one.so").write_bytes(library)
        sums = {"one.so": hashlib.sha256(library).hexdigest()}
        runtime = {
            "name": "torch",
            "digest": trees.digest(sums),
            "apart": apart,
            "bytes": len(library),
            "files": {"one.so": {"bytes": len(library), "sha256": sums["one.so"]}},
        }
        (folder / "runtime.json").write_text(json.dumps(runtime))
        files = {"runner": RUNNER.encode(), "program.pte": program}
        if not apart:
            files["lib/one.so"] = library
        listed = {n: {"bytes": len(d), "sha256": bundles.digest(d)} for n, d in files.items()}
        packed(folder, RUNNER, runtime={**runtime, "files": None}, files=listed)
        manifest = Bundle.open(folder / "bundle.tar").manifest
        (folder / "bundle.tar").write_bytes(bundles.write(files, manifest))
        return Made(Bundle.open(folder / "bundle.tar"), folder / "runtime.json")

    return made


@dataclass
class Place:
    root: Path
    connect: Callable[[], AbstractContextManager[UnixDevice]]

    def output(self, slot: str = "camera") -> bytes:
        """What the current bundle of a slot does, run by a person on the device."""
        at = self.root / "slots" / slot / "current"
        return subprocess.run(["./runner"], cwd=at, capture_output=True, check=True).stdout

    def left(self, folder: str) -> set[str]:
        return {path.name for path in (self.root / folder).iterdir()}


@pytest.fixture(params=stores.KINDS)
def place(request, tmp_path) -> Iterator[Place]:
    with stores.opened(request.param, tmp_path) as at:
        yield Place(*at)


def push(device: UnixDevice, made: Made, slot: str = "camera", **how) -> deploy.Pushed:
    return deploy.push(device, slot, made.bundle, made.runtime, **how)


@pytest.mark.parametrize("apart", [True, False])
def test_a_bundle_is_pushed_changed_and_rolled_back(place, make, apart):
    old, new = make(apart=apart), make(b"new", apart=apart)
    with place.connect() as device:
        first = push(device, old)
        assert place.output() == PROGRAM + LIBRARY
        assert (first.previous, first.changed) == (None, True)
        second = push(device, new)
        assert place.output() == b"new" + LIBRARY
        assert (second.previous, second.changed) == (first.digest, True)
        (slot,) = deploy.slots(device)
        assert (slot.name, slot.current, slot.previous) == ("camera", second.digest, first.digest)
        assert slot.holds == "tiny int8 xnnpack here"
        assert Path(slot.path) == place.root / "slots/camera/current"
        assert deploy.rollback(device, "camera") == first.digest
        assert place.output() == PROGRAM + LIBRARY
        assert deploy.rollback(device, "camera") == second.digest
        assert place.output() == b"new" + LIBRARY
    assert os.readlink(slot.path) == f"../../trees/{second.digest}"  # noqa: PTH115
    assert place.left("clients") == set()


def test_a_push_of_the_current_bundle_changes_nothing(place, make):
    with place.connect() as device:
        push(device, make())
        push(device, make(b"new"))
        before, states = deploy.slots(device), place.left("states")
        again = push(device, make(b"new"))
        assert (again.changed, again.sent) == (False, 0)
        assert (deploy.slots(device), place.left("states")) == (before, states)


def test_slots_share_what_they_can(place, make):
    with place.connect() as device:
        push(device, make(), "a")
        assert push(device, make(), "b").sent == 0
        push(device, make(b"new"), "b")
        assert (place.output("a"), place.output("b")) == (PROGRAM + LIBRARY, b"new" + LIBRARY)


def test_no_bundle_before(place, make):
    with place.connect() as device:
        with pytest.raises(UserError, match="there is no slot 'camera'"):
            deploy.rollback(device, "camera")
        push(device, make())
        with pytest.raises(UserError, match="has no bundle before the current one"):
            deploy.rollback(device, "camera")
        with pytest.raises(UserError, match="cannot name a slot"):
            push(device, make(), "../x")
        assert place.output() == PROGRAM + LIBRARY


def test_after_a_change_of_the_program_only_that_is_sent(place, make):
    """And the manifest, which tells its digest."""
    for apart in (True, False):
        old, new = make(apart=apart), make(os.urandom(len(PROGRAM)), apart=apart)
        with place.connect() as device:
            push(device, old)
            before = device.sent_bytes
            pushed = push(device, new)
            manifest = len(new.bundle.read("manifest.json"))
            assert pushed.sent == len(PROGRAM) + manifest
            assert device.sent_bytes - before <= pushed.sent + 4096


@pytest.mark.slow
def test_a_redeploy_costs_the_changed_file_on_the_wire(tmp_path, make):
    (tmp_path / "sshd").mkdir()
    with sshd.serving(tmp_path / "sshd") as server:
        with server.connect() as device:
            push(device, make())
        with proxy.Proxy(server.port) as link:
            known = server.known_hosts.read_text().replace(str(server.port), str(link.port))
            (tmp_path / "known").write_text(known)
            with server.connect(port=link.port, known_hosts=str(tmp_path / "known")) as device:
                push(device, make(PROGRAM[::-1]))
        assert link.up <= len(PROGRAM) + (64 << 10), "bytes to the device, with all of SSH's own"
        assert link.up + link.down <= len(PROGRAM) + (64 << 10), "in both directions"


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    with file.open("r+b") as opened:
        opened.write(data)


def test_a_damaged_program_is_found_and_mended_by_a_push(place, make):
    with place.connect() as device:
        push(device, make())
        assert deploy.verify(device, "camera") == []
        _flip(place.root / "slots/camera/current/program.pte")
        assert deploy.verify(device, "camera") == ["program.pte"]
        mended = push(device, make())
        assert (mended.changed, mended.sent) == (False, len(PROGRAM))
        assert deploy.verify(device, "camera") == []
        assert place.output() == PROGRAM + LIBRARY


def test_a_damaged_library_is_found_and_mended_by_a_thorough_push(place, make):
    with place.connect() as device:
        push(device, make())
        _flip(place.root / "slots/camera/current/lib/one.so")
        assert deploy.verify(device, "camera") == ["lib/one.so"]
        assert push(device, make()).sent == 0, "hundreds of megabytes are not hashed each time"
        assert push(device, make(), thorough=True).sent == len(LIBRARY)
        assert deploy.verify(device, "camera") == []
        assert place.output() == PROGRAM + LIBRARY


@pytest.mark.parametrize("name", ["program.pte", "manifest.json", "lib"])
def test_what_is_gone_is_damage_too(place, make, name):
    with place.connect() as device:
        push(device, make())
        (place.root / "slots/camera/current" / name).unlink()
        assert deploy.verify(device, "camera") == ["*"]
        push(device, make())
        assert deploy.verify(device, "camera") == []
        assert place.output() == PROGRAM + LIBRARY


def test_a_damaged_manifest_hides_no_other_slot(place, make):
    with place.connect() as device:
        pushed = push(device, make(), "a")
        push(device, make(b"new"), "b")
        manifest = place.root / "trees" / pushed.digest / "manifest.json"
        manifest.chmod(0o600)
        manifest.write_bytes(manifest.read_bytes()[:-1])
        assert [slot.name for slot in deploy.slots(device)] == ["a", "b"]


def test_a_damaged_bundle_is_not_rolled_back_to(place, make):
    with place.connect() as device:
        before = push(device, make()).digest
        push(device, make(b"new"))
        _flip(place.root / "trees" / before / "program.pte")
        with pytest.raises(InfraError, match=r"the current one .* is damaged: program\.pte"):
            deploy.rollback(device, "camera")
        assert place.output() == b"new" + LIBRARY


def test_a_rollback_whose_answer_is_lost_is_not_just_done_again(place, make, monkeypatch):
    with place.connect() as device:
        first = push(device, make())
        push(device, make(b"new"))
        ask = device.ask

        def lost(script, *args, doing, **options):
            said = ask(script, *args, doing=doing, **options)
            if doing.startswith("rolling"):
                raise InfraError("the connection was lost", hint="Run the same command again")
            return said

        monkeypatch.setattr(device, "ask", lost)
        with pytest.raises(InfraError, match="it may be done nevertheless"):
            deploy.rollback(device, "camera")
        assert deploy.slots(device)[0].current == first.digest


def test_a_lost_lease_activates_nothing(place, make):
    with place.connect() as device:
        push(device, make())
        push(device, make(b"new"))
        device.fence = "echo 'slipway: the lease passed on' >&2; exit 97"
        for work in (
            lambda: push(device, make(b"newer")),
            lambda: deploy.rollback(device, "camera"),
            lambda: deploy.prune(device),
        ):
            with pytest.raises(InfraError, match="the lease passed on"):
                work()
        assert place.output() == b"new" + LIBRARY


def test_two_clients_push_different_bundles(place, make):
    """One after the other becomes current; each finds the other as the one before, or nothing."""
    made = [make(bytes([k]) * 100_000) for k in range(4)]
    wrong: list[BaseException] = []

    def work(mine: Made) -> None:
        try:
            with place.connect() as device:
                push(device, mine)
        except BaseException as error:
            wrong.append(error)
            raise

    threads = [threading.Thread(target=work, args=(one,)) for one in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    with place.connect() as device:
        (slot,) = deploy.slots(device)
        digests = {trees.of_bundle(one.bundle, one.runtime).digest for one in made}
        assert {slot.current, slot.previous} <= digests
        assert slot.current != slot.previous
        assert deploy.verify(device, "camera") == []
        deploy.rollback(device, "camera")
        assert deploy.verify(device, "camera") == []


KILLED = """
import os, sys
from pathlib import Path
from toolchain.bundle import Bundle
from toolchain.devices import deploy, slot_scripts, store
from toolchain.devices.local import LocalDevice
device = LocalDevice("local", Path(sys.argv[1]))
ask, count = device.ask, [0]
def dying(*args, **how):
    count[0] += 1
    if count[0] == int(sys.argv[4]):
        os.kill(os.getpid(), 9)
    return ask(*args, **how)
device.ask = dying
deploy.push(device, "camera", Bundle.open(Path(sys.argv[2])), Path(sys.argv[3]))
print("done")
"""


@pytest.mark.slow
def test_a_client_killed_anywhere_leaves_the_old_or_the_new(tmp_path, make):
    place = Place(tmp_path / "store", lambda: stores.local(tmp_path / "store"))
    old, new = make(), make(b"new")
    with place.connect() as device:
        push(device, old)
    for number in range(1, 30):
        command = [sys.executable, "-c", KILLED, place.root, new.bundle.path, new.runtime, number]
        done = subprocess.run([*map(str, command)], check=False, capture_output=True)
        assert place.output() in (PROGRAM + LIBRARY, b"new" + LIBRARY)
        with place.connect() as device:
            assert deploy.verify(device, "camera") == []
            assert [slot.name for slot in deploy.slots(device)] == ["camera"]
        if b"done" in done.stdout:
            break
    assert number > 5
    with place.connect() as device:
        push(device, new)
        assert place.output() == b"new" + LIBRARY
        assert deploy.rollback(device, "camera")
        assert place.output() == PROGRAM + LIBRARY


def _switched_off(script: str, after: str) -> str:
    """The script, ending where the device loses its power: after a line with these words."""
    head, _, _ = script.partition(after)
    return f"{head}{after}\nexit 1"


BEFORE, AFTER = 'touch -- "$root/trees/$4" || exit 1', '"$root/slots/" || exit 1'


@pytest.mark.parametrize("after", [BEFORE, AFTER])
def test_power_that_fails_while_a_bundle_is_activated(place, make, monkeypatch, after):
    with place.connect() as device:
        first = push(device, make()).digest
        with monkeypatch.context() as off:
            off.setattr(slot_scripts, "SWITCH", _switched_off(slot_scripts.SWITCH, after))
            with pytest.raises(InfraError, match="activating camera failed"):
                push(device, make(b"new"))
        (slot,) = deploy.slots(device)
        if after == BEFORE:
            assert (slot.current, slot.previous) == (first, None)
        else:
            assert slot.previous == first, "both change at once"
        push(device, make(b"new"))
        assert place.output() == b"new" + LIBRARY
        assert deploy.rollback(device, "camera") == first


# ---- what leaves


def _entries(**sizes: int) -> list[Entry]:
    return [Entry(int(name[1:]), size, name, "") for name, size in sizes.items()]


def test_those_used_longest_ago_leave_first():
    there = {"old": _entries(f1=10), "older": _entries(f1=10, f2=5), "new": _entries(f3=10)}
    assert pruning.leaving(there, set(), Keep(3, 25)) == []
    assert pruning.leaving(there, set(), Keep(3, 24)) == ["old", "older"]
    assert pruning.leaving(there, {"old"}, Keep(2, 99)) == ["older"]
    assert pruning.leaving(there, set(there), Keep(0, 0)) == []


def test_a_runtime_leaves_after_the_last_that_shows_it():
    shows = [*_entries(f2=1), Entry(9, 3, "lib", "runtime")]
    there = {"runtime": _entries(f1=100), "a": shows, "b": shows}
    assert pruning.leaving(there, set(), Keep(0, 0)) == ["a", "b", "runtime"]
    assert pruning.leaving(there, {"b"}, Keep(0, 0)) == ["a"]


def _use(path: Path, seconds: int) -> None:
    os.utime(path, (seconds, seconds))


def test_old_bundles_leave_and_slots_keep_theirs(place, make):
    with place.connect() as device:
        pushed = [push(device, make(bytes([k]) * 1000)).digest for k in range(4)]
    for k, digest in enumerate(pushed):
        _use(place.root / "trees" / digest, 1000 + k)
    with place.connect() as device:
        assert deploy.prune(device).trees == ()
        gone = deploy.prune(device, Keep(trees=4))
        assert gone.trees == (pushed[0],)
        assert 1000 < gone.bytes < 4000
        gone = deploy.prune(device, Keep(0, 0))
        assert gone.trees == (pushed[1],), "current and previous stay, and their runtime"
        assert len(place.left("trees")) == 3
        assert place.output() == bytes([3]) * 1000 + LIBRARY
        deploy.rollback(device, "camera")
        assert place.output() == bytes([2]) * 1000 + LIBRARY
        links = [file.stat().st_nlink for file in (place.root / "files").iterdir()]
        assert min(links) > 1


def test_what_is_in_use_stays(place, make):
    """By a process, and by the work folder of a client that lives; not by one that is gone."""
    one, two = (make(bytes([k]), bytes([k]) * 1000) for k in range(2))
    first, second = (trees.of_bundle(made.bundle, made.runtime).digest for made in (one, two))
    with place.connect() as device:
        with place.connect() as other:
            deployment.send(one.bundle, one.runtime, other, folder="p0")
        with place.connect() as other:
            deployment.send(two.bundle, two.runtime, other, folder="p0")
            at = place.root / "trees" / first
            with subprocess.Popen(["sleep", "60"], cwd=at) as process:
                assert deploy.prune(device, Keep(0, 0)).trees == ()
                process.kill()
            gone = deploy.prune(device, Keep(0, 0)).trees
            assert len(gone) == 2, "with its runtime"
            assert first in gone
            assert other.run(["sh", "-c", "cd p0 && ./runner"], timeout=20).status == 0
            session = place.root / "clients" / Path(other.work).name / "session"
            pid, start, boot = session.read_text().split()
            session.write_text(f"{pid} {int(start) + 1} {boot}")
            assert second in deploy.prune(device, Keep(0, 0)).trees, "another process by now"


def test_room_is_made_before_a_push_fails(place, make, monkeypatch):
    with place.connect() as device:
        for k in range(3):
            push(device, make(bytes([k]) * 1000, bytes([k]) * (1 << 20)))
        real, asked = store._full, []

        def full(*args):
            asked.append(1)
            return store.Full(str(place.root), 1000, 500_000) if len(asked) == 1 else real(*args)

        monkeypatch.setattr(store, "_full", full)
        push(device, make(b"new"))
        assert place.output() == b"new" + LIBRARY
        assert len(asked) == 2


# ---- to be measured


def test_what_is_measured_again_is_not_sent_again(place, make, tmp_path):
    (tmp_path / "in").write_bytes(b"input")
    one = make()
    for times in range(2):
        with place.connect() as device:
            for folder in ("", "p0"):
                deployment.send(one.bundle, one.runtime, device, {"in": tmp_path / "in"}, folder)
                at = f"./{folder}" if folder else "."
                said = device.run(
                    ["sh", "-c", 'cd "$1" && ./runner && cat in', "sh", at], timeout=20
                )
                assert said.stdout == PROGRAM + LIBRARY + b"input"
            if times:
                assert device.sent_bytes < 4096
    assert not (place.root / "slots/camera").exists(), "to measure is not to activate"


def test_a_program_damaged_on_the_device_is_not_measured(place, make):
    one = make()
    with place.connect() as device:
        deployment.send(one.bundle, one.runtime, device)
        tree = trees.of_bundle(one.bundle, one.runtime).digest
        _flip(place.root / "trees" / tree / "program.pte")
        deployment.send(one.bundle, one.runtime, device)
        assert device.run(["./runner"], timeout=20).stdout == PROGRAM + LIBRARY


def test_a_library_damaged_on_the_device_is_not_measured(place, make):
    one = make()
    with place.connect() as device:
        deployment.send(one.bundle, one.runtime, device)
        shared = trees.of_runtime(one.runtime).digest
        _flip(place.root / "trees" / shared / "one.so")
        deployment.send(one.bundle, one.runtime, device, thorough=True)
        assert device.run(["./runner"], timeout=20).stdout == PROGRAM + LIBRARY


def test_another_runtime_than_the_bundle_was_made_with(place, make):
    one, other = make(), make(library=b"other")
    with place.connect() as device, pytest.raises(UserError, match="the bundle was made with"):
        deploy.push(device, "camera", one.bundle, other.runtime)


@pytest.mark.parametrize(("text", "told"), [("{", "is damaged"), ("[]", "describes no runtime")])
def test_what_describes_no_runtime(place, make, text, told):
    one = make()
    one.runtime.write_text(text)
    with place.connect() as device, pytest.raises(UserError, match=told):
        push(device, one)


def test_an_unfit_device_gets_nothing(place, make, monkeypatch):
    with place.connect() as device:
        monkeypatch.setattr(device, "facts", lambda: {"machine": "riscv64", "libc": "2.36"})
        with pytest.raises(InfraError, match="the device is riscv64"):
            push(device, make())
    assert device.sent_bytes == 0
    assert not place.root.exists()


@pytest.mark.parametrize("name", ["LOOK", "KEEP", "LEAVE", "MAKE_ROOM", "SWITCH", "SUMS", "PRUNE"])
def test_commands_are_short_enough_for_every_server(name):
    """Some take 9000 characters at most, with the lease's fence and what else is told."""
    script = getattr(scripts, name, None) or getattr(slot_scripts, name)
    fenced = f"{lease_scripts.fence('0' * 32)}\n{script}"
    said = {"KEEP": store.SHORT, "PRUNE": 65 * pruning.AT_ONCE}.get(name, 0)
    assert len(shlex.join(["sh", "-c", fenced, "slipway"])) + said + 1000 < 9000
