"""Schemes and the XNNPACK backend: options take effect as their formulas say, nothing is silent."""

from __future__ import annotations

import subprocess
import sys

import pytest

from toolchain import backends, programs, schemes
from toolchain.errors import UserError
from toolchain.material import Material
from toolchain.metrics import sqnr_db
from toolchain.schema import decode
from toolchain.schemes import int8_static

# What torch and its friends warn of while they are imported is the matter of test_steps.
pytestmark = pytest.mark.filterwarnings("ignore")


def test_names_are_those_of_the_files():
    assert {"float", "int8_static"} <= set(schemes.names())
    assert "xnnpack" in backends.names()
    with pytest.raises(UserError, match=r"unknown scheme 'int8_statik'\n.*'int8_static'"):
        schemes.load("int8_statik")
    with pytest.raises(UserError, match=r"unknown backend 'xnnpak'\n.*'xnnpack'"):
        backends.load("xnnpak")


def test_what_a_backend_can_do_follows_from_what_schemes_need():
    able = {"float": {}, "dynamic": {"granularity": ("per_channel",)}}
    schemes.check_able("float", {}, "simple", able, "here")
    schemes.check_able("int8_dynamic", {"granularity": "per_channel"}, "simple", able, "here")
    with pytest.raises(UserError, match=r"here\.scheme: .*'simple' cannot[^$]*float, int8_dynamic"):
        schemes.check_able("int8_static", {}, "simple", able, "here")
    with pytest.raises(UserError, match=r"here\.granularity: .*'per_tensor'[^$]*'per_channel'"):
        schemes.check_able("int8_dynamic", {"granularity": "per_tensor"}, "simple", able, "here")


@pytest.mark.parametrize("name", schemes.names())
def test_every_scheme_has_what_a_scheme_has(name):
    scheme = schemes.load(name)
    assert decode(scheme.Options, {}, "here") == scheme.Options()
    assert isinstance(scheme.NEEDS, str)
    assert any(scheme.NEEDS in backends.load(n).ABILITIES for n in backends.names())
    assert {"calibration", "training", "search"} >= scheme.USES
    with pytest.raises(UserError, match="unknown key 'nonsense'"):
        decode(scheme.Options, {"nonsense": 1}, "here")


def test_options_are_checked_without_torch():
    code = (
        "import sys; from toolchain import schemes, backends, loading, metrics;"
        "[schemes.load(n).Options() for n in schemes.names()];"
        "[backends.load(n).ABILITIES for n in backends.names()];"
        "sys.exit(str({'torch', 'numpy'} & set(sys.modules)) if 'torch' in sys.modules else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(autouse=True)
def _torch_is_ready(request):
    if request.node.get_closest_marker("slow"):
        programs.prepare_torch()


@pytest.fixture(scope="module")
def xnnpack():
    return backends.load("xnnpack")


def network(mean=False):
    """Convolution, batch-norm, ReLU, linear; one channel of the convolution has a huge weight.

    That weight meets an input channel that is always zero (see `inputs`): it changes no output,
    but a scale for all channels has to reach as far as it does.
    """
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 16, 3, padding=1)
            self.norm = nn.BatchNorm2d(16)
            self.linear = nn.Linear(16, 5)

        def forward(self, x):
            x = torch.relu(self.norm(self.conv(x)))
            if mean:
                return self.linear(x.mean([2, 3]))
            return self.linear(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))

    made = Network().eval()
    with torch.no_grad():
        made.conv.weight[0, 2] = 10.0
    return made


def inputs(count, seed=1):
    import torch

    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(count, 1, 3, 8, 8, generator=generator)
    made[:, :, 2] = 0
    return [(sample.clone(),) for sample in made]


def exported(**options):
    import torch

    return torch.export.export(network(**options), inputs(1)[0])


def quantized(xnnpack, calibration=None, **options):
    given = calibration or inputs(16)
    material = Material(calibration=given)
    return int8_static.quantize(
        exported(), int8_static.Options(**options), xnnpack, material
    ).program


def outputs(program, samples):
    import torch

    module = program.module()
    return torch.cat([module(*sample) for sample in samples]).detach().numpy()


def targets(program):
    return [str(n.target) for n in program.graph.nodes if n.op == "call_function"]


def input_scale(program):
    """Scale and zero point of the model's input."""
    first = next(n for n in program.graph.nodes if "quantize_per_tensor" in str(n.target))
    return first.args[1], first.args[2]


def loss(samples, scale, zero):
    """Squared error of the samples in int8."""
    import torch

    values = torch.cat([sample for (sample,) in samples])
    back = torch.fake_quantize_per_tensor_affine(values, scale, zero, -128, 127)
    return float(((values - back) ** 2).sum())


@pytest.mark.slow
def test_granularity_takes_effect(xnnpack):
    per_channel = quantized(xnnpack)
    per_tensor = quantized(xnnpack, granularity="per_tensor")
    assert sum("dequantize_per_channel" in t for t in targets(per_channel)) == 2
    assert not [t for t in targets(per_tensor) if "per_channel" in t]
    samples = inputs(16, seed=2)
    wanted = outputs(exported(), samples)
    fine, coarse = (sqnr_db(wanted, outputs(p, samples)) for p in (per_channel, per_tensor))
    assert fine > 25
    assert fine > coarse + 10, (fine, coarse)


@pytest.mark.slow
def test_batch_norm_is_folded(xnnpack):
    assert any("batch_norm" in t for t in targets(exported()))
    assert not any("batch_norm" in t for t in targets(quantized(xnnpack)))


@pytest.mark.slow
def test_each_observer_gives_what_its_formula_says(xnnpack):
    calibration = inputs(16)
    calibration[5][0][0, 0, 0, 0] = 9.0  # an outlier
    lows = [float(sample.min()) for (sample,) in calibration]
    highs = [float(sample.max()) for (sample,) in calibration]

    scale, zero = input_scale(quantized(xnnpack, calibration, observer="minmax"))
    assert scale == pytest.approx((max(highs) - min(lows)) / 255, rel=1e-5)
    assert zero == -128 - round(min(lows) / scale)

    low, high = lows[0], highs[0]
    for k in range(1, 16):
        low, high = low + 0.01 * (lows[k] - low), high + 0.01 * (highs[k] - high)
    moving, _ = input_scale(quantized(xnnpack, calibration, observer="moving_average"))
    assert moving == pytest.approx((high - low) / 255, rel=1e-4)

    found = input_scale(quantized(xnnpack, calibration, observer="histogram"))
    assert moving < found[0] < scale
    assert loss(calibration, *found) < loss(calibration, scale, zero)


@pytest.mark.slow
def test_no_calibration_samples_are_refused(xnnpack):
    with pytest.raises(UserError, match="no calibration samples"):
        int8_static.quantize(exported(), int8_static.Options(), xnnpack, Material())


@pytest.mark.slow
def test_all_is_delegated_and_the_program_computes_the_same(xnnpack, tmp_path):
    model = quantized(xnnpack)
    program, report = xnnpack.lower(model)
    assert report == {
        "schema": 1,
        "operators": {"delegated": 5, "undelegated": {}},  # conv, relu, pool, view, linear
        "delegates": 1,
        "delegated_share": 1.0,
    }
    (tmp_path / "p.pte").write_bytes(program)
    samples = inputs(6, seed=3)
    found = xnnpack.run(tmp_path / "p.pte", samples, 1)
    wanted = outputs(model, samples)
    assert sqnr_db(wanted, programs_array(found)) > 30
    again = xnnpack.run(tmp_path / "p.pte", samples[:1], 1)
    assert found[0][0].equal(again[0][0]), "a later sample has overwritten an earlier output"
    for threads in (1, 2):
        other = xnnpack.run(tmp_path / "p.pte", samples, threads)
        assert all(a.equal(b) for (a,), (b,) in zip(found, other, strict=True))


def programs_array(found):
    import torch

    return torch.cat([out for (out,) in found]).numpy()


@pytest.mark.slow
def test_what_is_left_undelegated_is_listed(xnnpack, tmp_path):
    program, report = xnnpack.lower(exported(mean=True))
    assert report["operators"]["undelegated"] == {"aten::mean.out": 1}
    assert report["delegates"] == 2
    delegated = report["operators"]["delegated"]
    assert report["delegated_share"] == pytest.approx(delegated / (delegated + 1))
    (tmp_path / "p.pte").write_bytes(program)
    samples = inputs(3)
    found = programs_array(xnnpack.run(tmp_path / "p.pte", samples, 1))
    assert sqnr_db(outputs(exported(mean=True), samples), found) > 100


@pytest.mark.slow
def test_undelegated_quantize_operators_are_listed_and_have_kernels_on_the_host(
    xnnpack, tmp_path, capfd
):
    import torch

    # XNNPACK has no convolution in three dimensions; the quantizer has a pattern for it.
    torch.manual_seed(0)
    samples = [(torch.randn(1, 4, 6, 6, 6),) for _ in range(4)]
    float_model = torch.export.export(torch.nn.Conv3d(4, 4, 3).eval(), samples[0])
    material = Material(calibration=samples)
    model = int8_static.quantize(float_model, int8_static.Options(), xnnpack, material).program
    program, report = xnnpack.lower(model)
    assert report["operators"]["undelegated"] == {
        "aten::convolution.out": 1,
        "quantized_decomposed::dequantize_per_channel.out": 1,
    }
    assert report["delegated_share"] == 0.0
    (tmp_path / "p.pte").write_bytes(program)
    # It loads: each operator has a kernel. That of the convolution takes no three dimensions.
    with pytest.raises(UserError, match=r"p\.pte: ExecuTorch cannot run it on this host"):
        xnnpack.run(tmp_path / "p.pte", samples, 1)
    assert "convolution" in capfd.readouterr().err, "the runtime's own reason is shown"


@pytest.mark.slow
def test_an_operator_without_a_kernel_is_one_message(xnnpack):
    import torch

    torch.library.define("slipway_tests::twice", "(Tensor x) -> Tensor")
    torch.library.impl("slipway_tests::twice", "CompositeExplicitAutograd")(lambda x: x * 2)
    torch.library.register_fake("slipway_tests::twice")(torch.empty_like)

    class Twice(torch.nn.Module):
        def forward(self, x):
            return torch.ops.slipway_tests.twice(x)

    model = torch.export.export(Twice(), (torch.ones(1, 2),))
    with pytest.raises(UserError, match=r"no kernel for an operator.*slipway_tests::twice"):
        xnnpack.lower(model)


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["cut", "noise", "empty"])
def test_a_broken_program_is_one_message(xnnpack, tmp_path, broken):
    program, _ = xnnpack.lower(exported())
    content = {"cut": program[: len(program) // 2], "noise": b"\x07" * 4096, "empty": b""}[broken]
    (tmp_path / "p.pte").write_bytes(content)
    with pytest.raises(UserError, match=r"p\.pte: ExecuTorch cannot load it"):
        xnnpack.run(tmp_path / "p.pte", inputs(1), 1)
