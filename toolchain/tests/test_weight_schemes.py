"""Schemes that round weights: small, right on XNNPACK, and refused where they would not be."""

from __future__ import annotations

import pytest

from toolchain import backends, programs, reach, schemes
from toolchain.errors import UserError
from toolchain.material import Material
from toolchain.metrics import sqnr_db
from toolchain.selection import Selection, module_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ROWS, SIZE, CLASSES = 512, 64, 10


@pytest.fixture(autouse=True, scope="module")
def _torch_is_ready():
    programs.prepare_torch()


@pytest.fixture(scope="module")
def xnnpack():
    return backends.load("xnnpack")


def sentences(**changes):
    """Embedding, two linear layers with ReLU between, a third without bias."""
    import torch
    from torch import nn

    class Sentences(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.table = nn.Embedding(ROWS, SIZE)
            self.wide = nn.Linear(SIZE, 4 * SIZE)
            self.narrow = nn.Linear(4 * SIZE, changes.get("narrow", SIZE))
            self.classify = nn.Linear(changes.get("narrow", SIZE), CLASSES, bias=False)

        def forward(self, words):
            return self.classify(self.narrow(torch.relu(self.wide(self.table(words)))))

    return Sentences().eval()


def words(count):
    import torch

    made = torch.randint(0, ROWS, (count, 1, 8), generator=torch.Generator().manual_seed(1))
    return [(sample,) for sample in made]


def quantized(xnnpack, scheme, model=None, samples=None, **options):
    import torch

    program = torch.export.export(model or sentences(), (samples or words(1))[0])
    module = schemes.load(scheme)
    made = module.quantize(xnnpack.prepare(program), module.Options(**options), xnnpack, Material())
    return made.program if not made.notes else made


def computed(program, samples):
    import torch

    with torch.no_grad():
        return torch.cat([program(*sample) for sample in samples]).numpy()


def on_device(xnnpack, folder, program, samples):
    """Outputs of the lowered program, its size in bytes, the report."""
    import torch

    content, report = xnnpack.lower(program)
    (folder / "p.pte").write_bytes(content)
    found = xnnpack.run(folder / "p.pte", samples, 1)
    return torch.cat([outputs[0] for outputs in found]).numpy(), len(content), report


@pytest.fixture(scope="module")
def float_size(xnnpack):
    return len(xnnpack.lower(quantized(xnnpack, "float"))[0])


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_weight_only_is_small_and_computes_what_it_says(xnnpack, tmp_path, float_size, granularity):
    program, samples = quantized(xnnpack, "int8_weight_only", granularity=granularity), words(4)
    found, size, report = on_device(xnnpack, tmp_path, program, samples)
    assert sqnr_db(computed(program.module(), samples), found) > 60
    assert sqnr_db(computed(sentences(), samples), found) > 25
    assert size < 0.3 * float_size
    # All but the table stands in one delegate: no copy of a weight in float.
    assert report["operators"]["undelegated"] == {"quantized_decomposed::embedding_byte.out": 1}
    assert report["delegates"] == 1


def test_a_bias_is_not_scaled_with_the_weight(xnnpack, tmp_path):
    """XNNPACK's kernel adds a bias before it multiplies with the scale: ours must not be there."""
    import torch

    layer = torch.nn.Linear(64, 8)
    with torch.no_grad():
        layer.weight.fill_(0)
        layer.bias.copy_(torch.arange(8) - 3.5)
    samples = [(torch.ones(1, 64),)]
    program = quantized(xnnpack, "int8_weight_only", layer, samples)
    found, _, _ = on_device(xnnpack, tmp_path, program, samples)
    assert found[0].tolist() == pytest.approx((torch.arange(8) - 3.5).tolist())


def test_weight_only_leaves_convolutions_in_float_and_says_so(xnnpack, tmp_path):
    import torch
    from torch import nn

    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)).eval()
    samples = [(torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(2)),)]
    program = quantized(xnnpack, "int8_weight_only", model, samples)
    options = schemes.load("int8_weight_only").Options()
    able = xnnpack.quantizable("weight_only")
    assert isinstance(options, Selection)
    done, left = reach.reached(program, able, options)
    assert [row["operator"] for row in done] == ["aten.linear.default"]
    why = {row["operator"]: row["why"] for row in left}
    assert why["aten.conv2d.default"] == "the backend's quantizer has no pattern for it"
    found, _, report = on_device(xnnpack, tmp_path, program, samples)
    assert sqnr_db(computed(program.module(), samples), found) > 60
    assert report["operators"]["undelegated"] == {}


@pytest.mark.parametrize("scheme", ["int8_dynamic", "int8_dynamic_int4_weight"])
def test_dynamic_schemes_compute_what_they_say(xnnpack, tmp_path, float_size, scheme):
    program, samples = quantized(xnnpack, scheme, embeddings=True), words(4)
    program = getattr(program, "program", program)
    found, size, report = on_device(xnnpack, tmp_path, program, samples)
    # On a tie, a value is rounded to another int8. Scales of groups are bfloat16 on the device.
    at_least = 45 if scheme == "int8_dynamic" else 30
    assert sqnr_db(computed(program.module(), samples), found) > at_least
    assert sqnr_db(computed(sentences(), samples), found) > (25 if scheme == "int8_dynamic" else 12)
    assert size < 0.3 * float_size
    assert report["delegates"] == 1


def test_embeddings_stay_float_unless_they_are_asked_for(xnnpack):
    program = quantized(xnnpack, "int8_dynamic")
    _, report = xnnpack.lower(program)
    assert report["operators"]["undelegated"] == {"aten::embedding.out": 1}


def test_skip_and_only_take_effect(xnnpack):
    for options in ({"skip": ("wide", "classify")}, {"only": ("narrow",)}):
        program = quantized(xnnpack, "int8_dynamic", **options)
        rounded = {
            module_of(node)
            for node in program.graph.nodes
            if "linear" in str(node.target) and "dequantize" in str(node.args[1])
        }
        assert rounded == {"narrow"}


def test_rows_that_groups_do_not_divide_get_int8_weights(xnnpack, tmp_path):
    model, samples = sentences(narrow=40), words(4)
    made = quantized(xnnpack, "int8_dynamic_int4_weight", model)
    assert made.notes == {"int8_weights": ["classify"]}
    found, _, report = on_device(xnnpack, tmp_path, made.program, samples)
    assert sqnr_db(computed(made.program.module(), samples), found) > 30
    assert report["delegates"] == 1


def test_small_weights_are_rounded_finely(xnnpack):
    """A row of tiny weights has a tiny scale, not the least that static quantization can have."""
    import torch

    layer = torch.nn.Linear(64, 8, bias=False)
    with torch.no_grad():
        layer.weight.mul_(1e-4)
    samples = [(torch.randn(4, 64, generator=torch.Generator().manual_seed(3)),)]
    program = quantized(xnnpack, "int8_dynamic", layer, samples)
    assert sqnr_db(computed(layer, samples), computed(program.module(), samples)) > 30


def test_indices_that_are_computed_stay_integers(xnnpack, tmp_path):
    import torch

    class Shifted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.linear = torch.nn.Embedding(9, 32), torch.nn.Linear(32, 2)

        def forward(self, x):
            return self.linear(self.table(x + 1) * 2)

    samples = [(torch.tensor([[3, 4]]),)]
    model = Shifted().eval()
    for scheme in ("int8_dynamic", "int8_weight_only"):
        program = quantized(xnnpack, scheme, model, samples)
        found, _, _ = on_device(xnnpack, tmp_path, program, samples)
        assert sqnr_db(computed(model, samples), found) > 25


@pytest.mark.parametrize("bias", [False, True])
def test_what_would_come_out_as_garbage_is_refused(xnnpack, bias):
    """ExecuTorch lowers this as if the integers were the weights, and says nothing."""
    import torch
    from torchao.quantization import IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerAxis

    model = torch.nn.Sequential(torch.nn.Linear(64, 8, bias=bias))
    quantize_(model, IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0)))
    program = torch.export.export(model, (torch.ones(1, 64),))
    with pytest.raises(UserError, match=r"weight of '0'.*float inputs\n.*int8_weight_only"):
        xnnpack.lower(program)


def test_groups_that_xnnpack_does_not_take_are_refused(xnnpack):
    made = quantized(xnnpack, "int8_dynamic_int4_weight", group_size=16)
    with pytest.raises(UserError, match=r"16 values of -8\.\.7 share a scale"):
        xnnpack.lower(getattr(made, "program", made))
    able = xnnpack.ABILITIES
    with pytest.raises(UserError, match=r"group_size = 16 .*\n.*32, 64"):
        schemes.check_able(
            "int8_dynamic_int4_weight", {"group_size": 16}, "xnnpack", able, "[variants.x]"
        )


@pytest.mark.parametrize(
    ("key", "value"), [("granularity", "per_tensor"), ("mapping", "symmetric")]
)
def test_what_xnnpack_cannot_do_is_refused(xnnpack, key, value):
    with pytest.raises(UserError, match=f"{key} = '{value}'.*\n.*it can do"):
        schemes.check_able("int8_dynamic", {key: value}, "xnnpack", xnnpack.ABILITIES, "here")
