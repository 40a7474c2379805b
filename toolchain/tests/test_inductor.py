"""The backend `inductor`, compiling: the floor holds, integers are integers, bytes repeat."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from toolchain import backends, isa, machine_code, programs, schemes
from toolchain.errors import UserError
from toolchain.inductor import forms
from toolchain.material import Material
from toolchain.metrics import sqnr_db
from toolchain.schema import Isa

V3, V4 = Isa(level="x86-64-v3"), Isa(level="x86-64-v4")
HERE = isa.of_this_host()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not isa.features(V3) <= HERE, reason="this host's CPU is below x86-64-v3"),
]


@dataclass
class Lowered:
    """A program, its report, and the quantized model that it was made from."""

    content: bytes
    report: dict[str, Any]
    file: Path
    model: Any

    @property
    def undelegated(self) -> dict[str, int]:
        return dict(self.report["operators"]["undelegated"])

    @property
    def code(self) -> bytes:
        ((_, content),) = backends.load("inductor").machine_code(self.file)
        return content

    def sqnr(self, samples, target) -> float:
        """In dB, of the program's outputs against those of the model before it."""
        import torch

        module = self.model.module()
        with torch.no_grad():
            wanted = torch.cat([module(*sample) for sample in samples]).numpy()
        found = backends.load("inductor").run(self.file, samples, 1, target)
        return sqnr_db(wanted, torch.cat([outputs[0] for outputs in found]).numpy())


@pytest.fixture(autouse=True, scope="module")
def _torch_is_ready():
    programs.prepare_torch()


def network():
    """Convolutions with a shortcut, pooling, and a linear layer: what oneDNN has kernels for."""
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.stem = nn.Conv2d(3, 32, 3, padding=1)
            self.norm = nn.BatchNorm2d(32)
            self.body = nn.Conv2d(32, 32, 3, padding=1)
            self.head = nn.Linear(32, 5)

        def forward(self, x):
            x = torch.relu(self.norm(self.stem(x)))
            x = self.body(x) + x
            return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))

    return Network().eval()


def samples(*shape, count=8):
    import torch

    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(*shape, generator=generator),) for _ in range(count)]


IMAGES = (1, 3, 8, 8)


def quantized(scheme, model, given, **options):
    import torch

    inductor, module = backends.load("inductor"), schemes.load(scheme)
    program = inductor.prepare(torch.export.export(model, given[0]))
    material = Material(calibration=given)
    return module.quantize(program, module.Options(**options), inductor, material).program


def lowered(folder, model, target) -> Lowered:
    content, report = backends.load("inductor").lower(model, target)
    file = folder / "program.pt2"
    file.write_bytes(content)
    return Lowered(content, report, file, model)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    model = quantized("int8_static", network(), samples(*IMAGES))
    return lowered(tmp_path_factory.mktemp("v3"), model, V3)


@pytest.fixture(scope="module")
def wide(tmp_path_factory, narrow):
    if not isa.features(V4) <= HERE:
        pytest.skip("this host's CPU is below x86-64-v4")
    return lowered(tmp_path_factory.mktemp("v4"), narrow.model, V4)


def test_all_that_has_weights_computes_on_integers(narrow):
    assert narrow.report["integer"] == {"wanted": 3, "computed": 3, "weight_bits": 7}
    assert narrow.undelegated == {}
    assert narrow.report["delegated_share"] == 1.0
    assert sum(narrow.report["kernels"]["onednn"].values()) == 3


def test_outputs_are_those_of_the_quantized_model(narrow):
    assert narrow.sqnr(samples(*IMAGES), V3) > 20


def test_sums_of_products_do_not_overflow_without_vnni(tmp_path):
    import torch
    from torch import nn

    conv, head = nn.Conv2d(16, 16, 1, bias=False), nn.Linear(64, 4)
    model = nn.Sequential(conv, nn.Flatten(), head).eval()
    with torch.no_grad():
        conv.weight.fill_(1.0)  # each product is the greatest that there is
        head.weight.fill_(1.0)
    given = [(torch.full((1, 16, 2, 2), value),) for value in (1.0, 0.9)]
    made = lowered(tmp_path, quantized("int8_static", model, given), V3)
    assert made.report["integer"] == {"wanted": 2, "computed": 2, "weight_bits": 7}
    assert made.sqnr(given, V3) > 35  # a program that overflows has 6 dB


def test_the_floor_holds_in_the_instructions(narrow, wide):
    allowed = isa.features(V3)
    assert {"avx", "avx2"} <= machine_code.used(narrow.code) <= allowed
    machine_code.check(narrow.code, allowed, "program.pt2")
    assert "avx512f" in machine_code.used(wide.code)
    with pytest.raises(UserError, match=r"instructions need .*avx512f[^$]*' at cpp_fused|at _Z"):
        machine_code.check(wide.code, allowed, "program.pt2")
    machine_code.check(wide.code, isa.features(V4), "program.pt2")


def test_one_process_runs_programs_of_several_floors(narrow, wide):
    assert wide.sqnr(samples(*IMAGES), V4) > 20
    assert narrow.sqnr(samples(*IMAGES), V3) > 20


def test_bytes_repeat_in_another_folder_and_nothing_is_left(narrow, tmp_path, monkeypatch):
    elsewhere = tmp_path / "another-folder-with-a-longer-name"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    again = lowered(tmp_path, narrow.model, V3)
    assert again.content == narrow.content
    assert again.report == narrow.report
    assert list(elsewhere.iterdir()) == []
    for path in (str(tmp_path), str(Path(programs.__file__).parents[1]), "/tmp/"):
        assert path.encode() not in again.content


def test_what_is_left_out_stays_float():
    model = quantized("int8_static", network(), samples(*IMAGES), skip=("body",))
    taken = [n for n in model.graph.nodes if forms.is_integer(n)]
    assert [str(node.target) for node in taken] == ["aten.conv2d.default", "aten.linear.default"]


def test_dynamic_activations_have_a_scale_for_each_token(tmp_path):
    import torch
    from torch import nn

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.query, self.key, self.out = (nn.Linear(32, 32) for _ in range(3))

        def forward(self, x):
            scores = self.query(x) @ self.key(x).transpose(1, 2)
            return self.out(scores.softmax(-1) @ x)

    given = samples(1, 6, 32)
    given[0][0][0, 0] *= 100  # with one scale for all, the other tokens would be nothing
    made = lowered(tmp_path, quantized("int8_dynamic", Attention().eval(), given), V3)
    assert made.report["integer"] == {"wanted": 3, "computed": 3, "weight_bits": 7}
    assert made.undelegated == {"aten::bmm_out": 2}  # the products of activations
    assert made.sqnr(given, V3) > 25


def test_an_embedding_looks_up_integers():
    import torch
    from torch import nn

    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.table, self.head = nn.Embedding(64, 32), nn.Linear(32, 4)

        def forward(self, x):
            return self.head(self.table(x))

    given = [(torch.arange(8).reshape(1, 8),)]
    model = quantized("int8_dynamic", Words().eval(), given, embeddings=True)
    program, wanted = forms.adapted(model)
    assert wanted == 1
    (found,) = (program.module()(*given[0]),)
    torch.testing.assert_close(found, model.module()(*given[0]), rtol=1e-5, atol=1e-5)
    floats = [n for n in program.graph.nodes if n.op == "placeholder" and n.users]
    sizes = [n.meta["val"].numel() for n in floats if n.meta["val"].dtype == torch.float32]
    assert max(sizes) < 64 * 32, "the table is not kept in float"


def test_training_goes_through_this_backend():
    from toolchain.schemes import int8_qat

    made = quantized("int8_static", network(), samples(*IMAGES))
    assert sum(map(forms.is_integer, made.graph.nodes)) == 3
    import torch

    inductor = backends.load("inductor")
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(
        network().train(), (torch.randn(4, *IMAGES[1:]),), dynamic_shapes=({0: batch},)
    )
    options = int8_qat.Options()
    module = int8_qat.prepared(inductor.prepare(program), options, inductor)
    module(torch.randn(4, *IMAGES[1:]))
    float_model = inductor.prepare(torch.export.export(network(), samples(*IMAGES)[0]))
    carried = int8_qat.carried_over(module, float_model, options, inductor)
    assert sum(map(forms.is_integer, carried.graph.nodes)) == 3


def test_a_compiler_that_fails_is_told_in_its_own_words(narrow, tmp_path, monkeypatch):
    compiler = tmp_path / "g++"
    compiler.write_text(
        '#!/bin/sh\ncase "$*" in *.kernel.cpp*) echo "no space left" >&2; exit 1;;'
        f' esac\nexec {shutil.which("g++")} "$@"\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(UserError, match=r"AOTInductor cannot compile it:[^$]*no space left"):
        backends.load("inductor").lower(narrow.model, V3)


def test_a_broken_program_is_told(narrow, tmp_path):
    (tmp_path / "p.pt2").write_bytes(narrow.content[:-1000])
    with pytest.raises(UserError, match=r"p\.pt2: AOTInductor cannot run it on this host"):
        backends.load("inductor").run(tmp_path / "p.pt2", samples(*IMAGES), 1, V3)
