"""The set-up refuses what cannot work, with the next command."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from toolchain import bootstrap

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("version", [(3, 7), (3, 10), (3, 14)])
def test_a_wrong_python_is_refused(version):
    with pytest.raises(bootstrap.SetupError, match=r"needs 3\.11 to 3\.13"):
        bootstrap.check_python(version)


def test_right_pythons_are_taken():
    for minor in (11, 12, 13):
        bootstrap.check_python((3, minor))


def test_without_a_package_manager_it_names_the_programs(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert "qemu-system-arm" in bootstrap.missing_packages()
    with pytest.raises(bootstrap.SetupError, match="no apt-get here"):
        bootstrap.install_packages(["qemu-system-arm"])


def test_without_root_or_sudo_it_prints_the_one_command(monkeypatch):
    which = {"apt-get": "/usr/bin/apt-get"}
    monkeypatch.setattr("shutil.which", which.get)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(bootstrap.SetupError) as caught:
        bootstrap.install_packages(["qemu-system-arm", "g++-aarch64-linux-gnu"])
    assert "apt-get install --no-install-recommends qemu-system-arm g++-aarch" in str(caught.value)


def test_no_network_is_one_message(tmp_path, monkeypatch):
    """A real pip that can reach no index."""
    monkeypatch.setattr(bootstrap, "VENV", tmp_path / ".venv")
    lock = tmp_path / "requirements.lock"
    lock.write_text("slipway-has-no-such-package==1\n")
    monkeypatch.setattr(bootstrap, "LOCK", lock)
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(bootstrap.SetupError, match="no network") as caught:
        bootstrap.install_dependencies()
    assert "slipway-has-no-such-package" in str(caught.value)
    assert not (tmp_path / ".venv/requirements.lock").exists(), "it is not taken for done"


def test_a_python_that_is_not_there_is_one_message(tmp_path):
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "setup").write_bytes((ROOT / "scripts/setup").read_bytes())
    done = subprocess.run(
        ["sh", str(scripts / "setup")],
        env={"PATH": os.environ["PATH"], "PYTHON": "python9.9"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("slipway: there is no python9.9")


def test_every_dependency_is_pinned_and_every_direct_one_explained():
    direct, _, rest = (ROOT / "requirements.lock").read_text().partition("# What those need:")
    pins = [line for line in direct.splitlines() if line and not line.startswith("#")]
    assert len(pins) > 10
    for line in pins:
        pin, _, reason = line.partition("#")
        assert "==" in pin, line
        assert len(reason) > 5, line
    assert all("==" in line for line in rest.split("\n") if line)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("No broken requirements found.", None),
        ("\n".join(bootstrap.NOT_NEEDED), None),
        (f"{bootstrap.NOT_NEEDED[0]}\na 1 requires b, which is not installed.", "a 1 requires b"),
        ("", None),
    ],
)
def test_a_package_that_lacks_another_is_refused(said, told):
    if told is None:
        bootstrap.check_consistency(["printf", "%s\\n", said])
        return
    with pytest.raises(bootstrap.SetupError, match=told) as caught:
        bootstrap.check_consistency(["printf", "%s\\n", said])
    assert "sentence-transformers" not in str(caught.value)
