"""The XNNPACK backend on models that need preparation: recurrent ones, and idle operators."""

from __future__ import annotations

import pytest

from toolchain import backends, programs, schemes
from toolchain.errors import UserError
from toolchain.material import Material
from toolchain.metrics import sqnr_db

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

TIME, HIDDEN = 6, 128


@pytest.fixture(autouse=True, scope="module")
def _torch_is_ready():
    programs.prepare_torch()


@pytest.fixture(scope="module")
def xnnpack():
    return backends.load("xnnpack")


def language_model(kind):
    import torch
    from torch import nn

    class LanguageModel(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.memory = getattr(nn, kind)(64, HIDDEN, batch_first=True)
            self.classifier = nn.Linear(HIDDEN, 32)

        def forward(self, x):
            return self.classifier(self.memory(x)[0])

    return LanguageModel().eval()


def samples(*shape):
    import torch

    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(*shape, generator=generator),) for _ in range(4)]


def quantized(xnnpack, scheme, model, sample, **options):
    import torch

    module = schemes.load(scheme)
    program = xnnpack.prepare(torch.export.export(model, sample))
    return module.quantize(program, module.Options(**options), xnnpack, Material()).program


def on_host(xnnpack, folder, program, given):
    import torch

    content, report = xnnpack.lower(program)
    (folder / "p.pte").write_bytes(content)
    found = xnnpack.run(folder / "p.pte", given, 1)
    return torch.cat([outputs[0] for outputs in found]).numpy(), content, report


def computed(model, given):
    import torch

    with torch.no_grad():
        return torch.cat([model(*sample) for sample in given]).numpy()


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_recurrent_model_is_one_delegate_with_each_weight_once(xnnpack, tmp_path, kind):
    model, given = language_model(kind), samples(1, TIME, 64)
    wanted = computed(model, given)
    sizes = {}
    for scheme, at_least in (("float", 100), ("int8_dynamic", 30), ("int8_weight_only", 30)):
        program = quantized(xnnpack, scheme, model, given[0])
        found, content, report = on_host(xnnpack, tmp_path, program, given)
        assert sqnr_db(wanted, found) > at_least, scheme
        assert (report["delegates"], report["operators"]["undelegated"]) == (1, {}), scheme
        sizes[scheme] = len(content)
    weights = sum(p.numel() for p in model.parameters())
    # Stored at each step, the recurrent weight alone would be TIME * gates * HIDDEN**2.
    assert sizes["float"] < 4 * weights + 40_000
    assert sizes["int8_dynamic"] < weights + 40_000
    assert sizes["int8_weight_only"] < weights + 40_000


def test_all_linear_layers_of_an_lstm_take_integers(xnnpack):
    program = quantized(xnnpack, "int8_dynamic", language_model("LSTM"), samples(1, TIME, 64)[0])
    linears = [n for n in program.graph.nodes if "aten.linear" in str(n.target)]
    assert len(linears) == TIME + 1  # inputs at once, all steps but the first, the classifier
    assert all("dequantize" in str(a.target) for n in linears for a in n.args[:2])


def test_expands_that_change_nothing_are_dropped(xnnpack):
    import torch

    class Expanded(torch.nn.Module):
        def forward(self, x):
            return x.expand(2, 3) + x[:1].expand(2, 3)

    given = (torch.arange(6.0).reshape(2, 3),)
    program = torch.export.export(Expanded(), given)
    prepared = xnnpack.prepare(program)
    assert sum("expand" in str(n.target) for n in prepared.graph.nodes) == 1
    assert torch.equal(prepared.module()(*given), Expanded()(*given))


def test_half_precision_is_half_the_size(xnnpack, tmp_path):
    import torch
    from torch import nn

    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 36, 64))
    given = samples(1, 3, 8, 8)
    program = quantized(xnnpack, "float16", model.eval(), given[0])
    found, content, report = on_host(xnnpack, tmp_path, program, given)
    assert found.dtype == "float32"
    assert sqnr_db(computed(model, given), found) > 50
    assert report["delegates"] == 1
    full = xnnpack.lower(torch.export.export(model, given[0]))[0]
    assert len(content) < 0.55 * len(full)


def test_weights_beyond_half_precision_are_refused(xnnpack):
    import torch

    layer = torch.nn.Linear(4, 2)
    with torch.no_grad():
        layer.weight[0, 0] = 1e5
    with pytest.raises(UserError, match=r"'weight' reaches 100000, .*65504"):
        quantized(xnnpack, "float16", layer, samples(1, 4)[0])


def test_depthwise_convolutions_stay_float_in_dynamic_quantization(xnnpack, tmp_path):
    from torch import nn

    model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 3)).eval()
    given = samples(1, 8, 8, 8)
    program = quantized(xnnpack, "int8_dynamic", model, given[0])
    rounded = [
        "dequantize" in str(n.args[1].target) for n in program.graph.nodes if "conv2d" in str(n)
    ]
    assert rounded == [False, True]
    found, _, report = on_host(xnnpack, tmp_path, program, given)
    assert sqnr_db(computed(model, given), found) > 25
    assert report["operators"]["undelegated"] == {}
