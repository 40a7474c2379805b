"""The step that looks at each layer: what it writes, that it goes on where it was stopped."""

from __future__ import annotations

import json
import os
import signal

import pytest
from safetensors.torch import save_file

from toolchain import backends, programs, schemes, sensitivity
from toolchain.errors import InfraError, UserError
from toolchain.material import Material
from toolchain.steps import sensitivity as step
from toolchain.tests.test_simulation import network, samples

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
SAMPLES = 6


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    import torch

    programs.prepare_torch()
    folder = tmp_path_factory.mktemp("sensitivity")
    model = torch.export.export(network(), samples(1)[0])
    scheme = schemes.load("int8_static")
    program = scheme.quantize(
        model, scheme.Options(), backends.load("xnnpack"), Material(calibration=samples(8))
    ).program
    (folder / "model.pt2").write_bytes(programs.to_bytes(model))
    (folder / "quantized.pt2").write_bytes(programs.to_bytes(program))
    inputs = torch.stack([sample for (sample,) in samples(SAMPLES, 5)])
    save_file({"input.0": inputs}, folder / "data.safetensors")
    return folder


def run(files, out, **changes):
    given = {
        "model": files / "model.pt2",
        "quantized": files / "quantized.pt2",
        "data": files / "data.safetensors",
        "backend": "xnnpack",
        "metric": "agreement",
        "folder": files,
        "samples": SAMPLES,
        "who": "a model",
        "out": out,
        "picture": out.with_suffix(".svg"),
    }
    step.run(**{**given, **changes})
    return json.loads(out.read_bytes())


def test_a_table_a_json_and_a_picture(files, tmp_path, capfd):
    found = run(files, tmp_path / "out.json")
    said = capfd.readouterr().out
    names = ["one.0", "two.0", "head"]
    assert [row["layer"] for row in found["layers"]] == names
    assert sorted(row["rank"] for row in found["layers"]) == [1, 2, 3]
    assert found["samples"] == SAMPLES
    picture = (tmp_path / "out.svg").read_text()
    for name in names:
        assert name in said
        assert name in picture
    assert [len(row["layers"]) for row in found["without_worst"]] == [1, 2, 3]
    nothing_left = found["without_worst"][-1]["sqnr_db"]
    assert nothing_left > found["without_worst"][0]["sqnr_db"] > found["sqnr_db"] - 1
    assert not (tmp_path / "out.partial").exists()


def test_it_goes_on_where_it_was_stopped(files, tmp_path, monkeypatch, capfd):
    calls, real = tmp_path / "calls", sensitivity.effects

    def effects(simulation, sample):
        with calls.open("a") as file:
            file.write("x")
        if os.environ.get("STOP") and calls.stat().st_size > 3:
            raise KeyError("stopped")
        return real(simulation, sample)

    monkeypatch.setattr(sensitivity, "effects", effects)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # samples in their order
    monkeypatch.setenv("STOP", "1")
    with pytest.raises(KeyError):
        run(files, tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()
    monkeypatch.delenv("STOP")
    calls.write_text("")
    resumed = run(files, tmp_path / "out.json")
    assert calls.stat().st_size == SAMPLES - 3
    assert "3 samples were done before" in capfd.readouterr().out
    assert resumed == run(files, tmp_path / "again.json")


def test_what_was_kept_is_not_taken_for_another_program(files, tmp_path, monkeypatch):
    """Stopped, then run on other data: nothing of the first try is in the result."""
    import torch

    other = torch.stack([sample for (sample,) in samples(SAMPLES, 11)])
    save_file({"input.0": other}, tmp_path / "other.safetensors")
    given = {"data": tmp_path / "other.safetensors"}
    clean = run(files, tmp_path / "clean.json", **given)

    def stopped(*_):
        raise KeyError("stopped")

    monkeypatch.setattr(sensitivity, "without_worst", stopped)
    with pytest.raises(KeyError):
        run(files, tmp_path / "out.json")
    monkeypatch.undo()
    assert list((tmp_path / "out.partial").rglob("*.npz")), "all samples were kept"
    assert run(files, tmp_path / "out.json", **given) == clean


def test_a_worker_that_is_killed_ends_the_step(files, tmp_path, monkeypatch):
    monkeypatch.setattr(sensitivity, "effects", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(InfraError, match="out of memory"):
        run(files, tmp_path / "out.json")


def test_a_program_without_quantized_weights_is_refused(files, tmp_path):
    with pytest.raises(UserError, match="no layer has quantized weights"):
        run(files, tmp_path / "out.json", quantized=files / "model.pt2")
