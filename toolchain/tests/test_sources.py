"""The machine's apt sources, limited to another architecture, and packages from them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from toolchain.devices import debian, sources
from toolchain.errors import InfraError, UserError

LIST = """\
# a comment
deb http://mirror.test/debian bookworm main contrib   # the archive
deb-src http://mirror.test/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] https://vendor.test stable main
deb [ arch=amd64,arm64 signed-by=/k.gpg ] https://both.test stable main
deb [arch-=arm64] https://without.test stable main
deb cdrom:[Debian]/ bookworm main
"""
SOURCES = """\
Types: deb deb-src
# a comment inside
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBFt

Types: deb
URIs: https://vendor.test
Suites: stable
Components: main
Architectures: amd64 i386

types: deb
uris: https://off.test
suites: stable
enabled: no

Types: deb-src
URIs: http://source.test
Suites: bookworm
"""


def test_one_line_sources_are_limited_to_arm64():
    found = sources.one_line(LIST, "sources.list")
    assert [(s.where, s.dropped) for s in found] == [
        ("sources.list:2", ""),
        ("sources.list:4", "is limited to amd64"),
        ("sources.list:5", ""),
        ("sources.list:6", "leaves out arm64"),
        ("sources.list:7", "is a CD-ROM"),
    ]
    assert found[0].text == "deb [arch=arm64] http://mirror.test/debian bookworm main contrib\n"
    assert found[2].text == "deb [signed-by=/k.gpg arch=arm64] https://both.test stable main\n"


def test_deb822_sources_are_limited_to_arm64():
    found = sources.deb822(SOURCES, "debian.sources")
    assert [(s.where, s.dropped) for s in found] == [
        ("debian.sources (stanza 1)", ""),
        ("debian.sources (stanza 2)", "is limited to amd64, i386"),
    ]
    assert found[0].text == (
        "Types: deb\nArchitectures: arm64\nUris: http://mirror.test/debian\n"
        "Suites: bookworm bookworm-updates\nComponents: main\n"
        "Signed-By: -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBFt\n"
    )


def test_sources_are_found_where_apt_finds_them(tmp_path):
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("deb http://one.test x main\n")
    (tmp_path / "sources.list.d/two.sources").write_text("Types: deb\nURIs: http://two.test\n")
    (tmp_path / "sources.list.d/three.list.disabled").write_text("deb http://three.test x main\n")
    uris = " ".join(source.text for source in sources.machine(tmp_path))
    assert "one.test" in uris
    assert "two.test" in uris
    assert "three.test" not in uris


def _archive(tmp_path: Path, listed: str) -> debian.Archive:
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "sources.list").write_text(listed)
    return debian.Archive(tmp_path / "cache", lambda _: None, etc)


@pytest.mark.skipif(not shutil.which("apt-get"), reason="no apt on this machine")
def test_sources_without_arm64_are_a_users_error(tmp_path):
    archive = _archive(tmp_path, "deb [arch=amd64] http://mirror.test/ubuntu noble main\n")
    with pytest.raises(UserError, match="no apt source of this machine carries arm64") as caught:
        archive.update()
    assert f"{tmp_path}/etc/sources.list:1 is limited to amd64" in str(caught.value)


def _repository(folder: Path, name: str, *, arch: str = "arm64") -> str:
    """A small archive of one package in a local folder; gives its line for sources.list."""
    package = folder / "package"
    (package / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: 1:2.0\nArchitecture: {arch}\nSection: libs\n"
    control += "Maintainer: none <none@test>\nDescription: none\nDepends: gone | other, tool\n"
    (package / "DEBIAN/control").write_text(control)
    deb = folder / "it.deb"
    subprocess.run(["dpkg-deb", "-b", package, deb], check=True, stdout=subprocess.DEVNULL)
    data = deb.read_bytes()
    index = f"{control}Filename: ./it.deb\nSize: {len(data)}\n"
    index += f"SHA256: {hashlib.sha256(data).hexdigest()}\n"
    (folder / "Packages").write_text(index)
    return f"deb [trusted=yes] file:{folder} ./\n"


@pytest.mark.skipif(not shutil.which("apt-get"), reason="no apt on this machine")
def test_packages_come_from_the_sources_and_a_damaged_download_is_fetched_again(tmp_path):
    archive = _archive(tmp_path, _repository(tmp_path / "repository", "libthing"))
    archive.update()
    chosen = archive.closure(["libthing"])
    assert [(p.name, p.version) for p in chosen] == [("libthing", "1:2.0")]
    path = archive.download(chosen)["libthing"]
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert archive.download(chosen)["libthing"].read_bytes() == whole


@pytest.mark.skipif(not shutil.which("apt-get"), reason="no apt on this machine")
def test_a_package_that_no_source_has_is_named(tmp_path):
    archive = _archive(tmp_path, _repository(tmp_path / "repository", "libthing"))
    archive.update()
    with pytest.raises(UserError, match="no arm64 package openssh-server"):
        archive.closure(["libthing", "openssh-server"])


@pytest.mark.skipif(not shutil.which("apt-get"), reason="no apt on this machine")
def test_an_unreachable_mirror_is_an_infra_error_with_apts_words(tmp_path):
    archive = _archive(tmp_path, f"deb [trusted=yes] file:{tmp_path}/nothing ./\n")
    archive.update()
    with pytest.raises(InfraError, match=r"(?s)no arm64 package.*nothing"):
        archive.closure(["libc6"])
