"""Which units are alike, and what the words of `device=` mean."""

from __future__ import annotations

import pytest

from toolchain import devices
from toolchain.devices import pool as pooling
from toolchain.errors import UserError
from toolchain.schema import Device

FILE = """
[pi4]
target = "arm64"
host = "pi4.lab"
tags = ["pi4"]
[pi5a]
target = "arm64"
host = "pi5a.lab"
tags = ["pi5", "lab-a"]
[pi5b]
target = "arm64"
host = "pi5b.lab"
tags = ["lab-a", "pi5"]
[pi5c]
target = "arm64"
host = "pi5c.lab"
tags = ["pi5", "lab-b"]
[nuc]
target = "x86_64"
host = "nuc.lab"
[rack]
target = "x86_64"
driver = "labgrid"
coordinator = "lab.example:20408"
place = "nuc-7"
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "devices.toml"
    path.write_text(FILE)
    return path


def names(pools):
    return {pool.name: [unit.name for unit in pool.units] for pool in pools}


def test_units_of_one_target_with_the_same_tags_are_a_pool(file):
    assert names(pooling.pools(file)) == {
        "arm64@pi4": ["pi4"],
        "arm64@lab-a+pi5": ["pi5a", "pi5b"],
        "arm64@lab-b+pi5": ["pi5c"],
        "x86_64": ["nuc", "rack"],
    }
    assert names(pooling.select(["all"], file)) == names(pooling.pools(file))


def test_a_tag_makes_one_pool_for_each_target(file):
    assert names(pooling.select(["@pi5"], file)) == {"arm64@pi5": ["pi5a", "pi5b", "pi5c"]}
    file.write_text(FILE.replace('host = "nuc.lab"', 'host = "nuc.lab"\ntags = ["lab-a"]'))
    assert names(pooling.select(["@lab-a"], file)) == {
        "arm64@lab-a": ["pi5a", "pi5b"],
        "x86_64@lab-a": ["nuc"],
    }


def test_units_can_be_named(file):
    assert names(pooling.select(["pi5b", "nuc", "pi5a"], file)) == {
        "arm64@lab-a+pi5": ["pi5b", "pi5a"],
        "x86_64": ["nuc"],
    }
    assert names(pooling.select(["nuc", "nuc"], file)) == {"x86_64": ["nuc"]}


def test_boards_by_number(tmp_path):
    (made,) = pooling.select(["qemu:cortex-a72*4"], tmp_path / "none")
    assert (made.name, made.spec, made.target) == ("qemu:cortex-a72", "qemu:cortex-a72", None)
    assert [unit.name for unit in made.units] == [f"qemu:cortex-a72#{k}" for k in (1, 2, 3, 4)]
    assert {unit.cpu for unit in made.units} == {"cortex-a72"}
    assert made.emulated
    (one,) = pooling.select(["qemu:cortex-a72*1"], tmp_path / "none")
    assert one == pooling.select(["qemu:cortex-a72"], tmp_path / "none")[0]
    assert devices.resolve(made.spec) == one.units[0]


def test_boards_of_a_file_join_the_others_of_their_cpu(file):
    file.write_text('[board]\ndriver = "qemu"\ncpu = "cortex-a72"\n')
    made = pooling.select(["qemu:cortex-a72*2", "board"], file)
    assert names(made) == {"qemu:cortex-a72": ["qemu:cortex-a72#1", "qemu:cortex-a72#2", "board"]}


def test_this_host_is_a_pool(tmp_path):
    (made,) = pooling.select(["local"], tmp_path / "none")
    assert (made.name, made.target, made.emulated) == ("local", None, False)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("pi55a", "did you mean 'pi5a'"),
        ("@pi55", "did you mean '@pi5'"),
        ("qemu:cortex-a72*many", "'many' is no number of boards"),
        ("qemu:cortex-a72*0", "0 boards of 1024 MB each"),
        ("qemu:cortex-a72*9999", "9999 boards of 1024 MB each"),
        ("qemu:cortex-a7*2", "unknown CPU model 'cortex-a7'"),
    ],
)
def test_a_word_that_means_nothing_is_refused(file, word, message):
    with pytest.raises(UserError, match="device=") as told:
        pooling.select([word], file)
    assert message in str(told.value)


def test_a_unit_is_in_one_pool(file):
    with pytest.raises(UserError, match=r"device=pi5a: is picked for two pools, arm64@lab-a\+pi5"):
        pooling.select(["pi5a", "@pi5"], file)


def test_without_a_file_there_is_no_tag(tmp_path):
    with pytest.raises(UserError, match="that lists units"):
        pooling.select(["@pi5"], tmp_path / "devices.toml")
    (tmp_path / "devices.toml").write_text("")
    with pytest.raises(UserError, match="lists no unit"):
        pooling.select(["all"], tmp_path / "devices.toml")


def test_a_unit_without_a_target_cannot_be_pooled(file):
    file.write_text('[pi]\nhost = "pi.lab"\n')
    with pytest.raises(UserError, match="the key 'target' is missing"):
        pooling.select(["pi"], file)
    assert devices.resolve("pi", file).target is None, "a build that names it knows"


@pytest.mark.parametrize("key", ["coordinator", "place"])
def test_what_labgrid_gives_out_has_a_coordinator_and_a_place(file, key):
    lines = [line for line in FILE.splitlines() if not line.startswith(key)]
    file.write_text("\n".join(lines))
    with pytest.raises(UserError, match=rf"\[rack\]: the key '{key}' is missing"):
        devices.resolve("rack", file)


def test_a_tag_is_a_name(file):
    file.write_text(FILE.replace('"pi4"]', '"pi 4"]'))
    with pytest.raises(UserError, match="'pi 4' should be text of the form"):
        pooling.pools(file)


def test_tags_are_no_part_of_what_is_measured():
    one, two = (Device(name="a", driver="ssh", host="h", tags=tags) for tags in ((), ("x",)))
    assert one.canonical() == two.canonical()
