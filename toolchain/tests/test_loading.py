"""A recipe's code and weights are loaded as its author means, and each mistake is one message."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys

import pytest

from toolchain.errors import UserError
from toolchain.loading import blamed, check_digest, importable, load, load_weights


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def test_modules_beside_a_file_are_found_and_those_of_two_recipes_never_meet(tmp_path):
    path, modules = list(sys.path), set(sys.modules)
    for name in ("a", "b"):
        folder = write(
            tmp_path / name,
            model="from layers import width\ndef build(): return width\n",
            layers=f"width = '{name}'\n",
        )
        assert load("model.py:build", folder)() == name
    assert sys.path == path
    assert "layers" not in sys.modules
    assert {"a__model", "b__model"} == set(sys.modules) - modules
    assert not list(tmp_path.rglob("__pycache__")), "a recipe's folder is not ours to write to"


def test_a_module_of_ours_comes_back_after_a_recipe_shadowed_its_name(tmp_path):
    import toolchain.stats as ours

    sys.modules["stats"] = ours
    try:
        write(tmp_path, model="import stats\ndef build(): return stats.x\n", stats="x = 5\n")
        assert load("model.py:build", tmp_path)() == 5
        assert sys.modules["stats"] is ours
    finally:
        del sys.modules["stats"]


def test_imports_inside_a_function_work_while_the_folder_is_importable(tmp_path):
    write(tmp_path, data="def late():\n    import parts\n    return parts.x\n", parts="x = 3\n")
    with importable(tmp_path):
        assert load("data.py:late", tmp_path)() == 3
    with pytest.raises(ModuleNotFoundError):
        load("data.py:late", tmp_path)()


def test_an_edit_within_the_same_second_and_of_the_same_size_is_seen(tmp_path):
    file = write(tmp_path, data="def x(): return 1\n") / "data.py"
    stamp = (1_000_000_000, 1_000_000_000)
    os.utime(file, stamp)
    assert load("data.py:x", tmp_path)() == 1
    file.write_text("def x(): return 2\n")
    os.utime(file, stamp)
    assert load("data.py:x", tmp_path)() == 2


def test_an_importable_function_is_found_by_its_dotted_name(tmp_path):
    assert load("json:dumps", tmp_path)({}) == "{}"
    assert load("os.path:join", tmp_path)("a", "b") == "a/b"


MISTAKES = {
    "no file": ("modle.py:build", "", ["modle.py", "no such file", "'model.py'"]),
    "no function": ("model.py:biuld", "def build(): ...", ["no function 'biuld'", "'build'"]),
    "not a function": ("model.py:build", "build = 3", ["'build' is an int, not a function"]),
    "syntax": ("model.py:build", "x = 1\ndef build(:\n", ["model.py:2", "is not Python"]),
    "no module": (
        "model.py:build",
        "import no_such_thing",
        ["model.py:1", "ModuleNotFoundError", "'no_such_thing' is neither installed in"],
    ),
    "raises": ("model.py:build", "x = 1\ny = x / 0", ["model.py:2", "ZeroDivisionError"]),
    "exits": ("model.py:build", "import sys\nsys.exit(3)", ["model.py:2", "SystemExit: 3"]),
    "no package": ("no_such_pkg.x:f", "", ["no_such_pkg", "neither installed"]),
    "no function in a package": ("json:dumpss", "", ["json", "'dumps'"]),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes(tmp_path, case):
    reference, text, told = MISTAKES[case]
    write(tmp_path, model=text)
    with pytest.raises(UserError) as caught:
        load(reference, tmp_path)
    for part in told:
        assert part in str(caught.value), str(caught.value)


def test_what_a_library_raises_is_blamed_on_the_recipes_line(tmp_path):
    write(tmp_path, data="import json\n\ndef data():\n    return json.loads('{')\n")
    function = load("data.py:data", tmp_path)
    with pytest.raises(UserError) as caught, blamed("data.py:data", tmp_path):
        function()
    assert "data.py:4: JSONDecodeError" in str(caught.value)
    assert "return json.loads('{')" in str(caught.value)


def test_our_own_messages_are_not_wrapped(tmp_path):
    with pytest.raises(UserError, match=r"^mine$"), blamed("data.py:data", tmp_path):
        raise UserError("mine")


def test_a_digest_is_checked(tmp_path):
    file = tmp_path / "w"
    file.write_bytes(b"abc")
    check_digest(file, hashlib.sha256(b"abc").hexdigest(), "here")
    check_digest(file, None, "here")
    with pytest.raises(UserError, match=r"here: the sha256 of .* is ba7816bf.*recipe says 0{64}"):
        check_digest(file, "0" * 64, "here")


@pytest.fixture
def model():
    torch = pytest.importorskip("torch")
    return torch.nn.Linear(2, 3)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_are_loaded_whole(tmp_path, model, suffix):
    import safetensors.torch
    import torch

    wanted = {"weight": torch.arange(6.0).reshape(3, 2), "bias": torch.ones(3)}
    path = tmp_path / f"w{suffix}"
    (safetensors.torch.save_file if suffix == ".safetensors" else torch.save)(wanted, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    load_weights(model, path, digest, "here")
    assert torch.equal(model.weight, wanted["weight"])
    assert torch.equal(model.bias, wanted["bias"])
    with pytest.raises(UserError, match="sha256"):
        load_weights(model, path, digest[::-1], "here")


def test_weights_that_do_not_fit_name_the_keys(tmp_path, model):
    import torch

    path = tmp_path / "w.pt"
    other = {f"layer.{k}": torch.ones(1) for k in range(9)} | {"weight": torch.ones(3, 4)}
    torch.save(other, path)
    before = model.weight.clone()
    with pytest.raises(UserError) as caught:
        load_weights(model, path, None, "recipe.toml: [model].weights")
    said = str(caught.value)
    assert "missing: bias" in said
    assert "unexpected: layer.0, layer.1, layer.2, layer.3, and 5 more" in said
    assert "weight is [3, 4], the model's is [3, 2]" in said
    assert torch.equal(model.weight, before)


class Evil:
    def __reduce__(self):
        return (os.system, ("touch evil_was_here",))


def test_code_in_weights_is_never_run(tmp_path, model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match=r"w\.pt cannot be loaded"):
        load_weights(model, tmp_path / "w.pt", None, "here")
    assert not (tmp_path / "evil_was_here").exists()


def test_other_things_than_a_state_dict_are_refused(tmp_path, model):
    import torch

    torch.save({"epoch": 3, "state_dict": model.state_dict()}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"a dict with the keys epoch, state_dict.*\n.*alone"):
        load_weights(model, tmp_path / "w.pt", None, "here")
    for name in ("w.safetensors", "x.pt"):
        (tmp_path / name).write_bytes(b"not weights at all")
        with pytest.raises(UserError, match="cannot be loaded"):
            load_weights(model, tmp_path / name, None, "here")
    with pytest.raises(UserError, match="no such file"):
        load_weights(model, tmp_path / "none.pt", None, "here")
