"""Bytes moved by small networks, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from toolchain import backends, programs, schemes, traffic
from toolchain.material import Material

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

QUANTIZE = ("quantize", 3 * 64 * 4, 0, 3 * 64)
CONV = ("conv2d", 3 * 64, 8 * 27 + 8 * 4 + 8 * 4, 8 * 64)  # int8 weights, scales, bias; with ReLU
POOL = ("adaptive_avg_pool2d", 8 * 64, 0, 8)
LINEAR = ("linear", 8, 5 * 8 + 5 * 4 + 5 * 4, 5)
DEQUANTIZE = ("dequantize", 5, 0, 5 * 4)


def convolutional():
    """[1, 3, 8, 8] -> convolution, batch-norm, ReLU -> 8 channels -> pooled -> 5 classes."""
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
            self.act = nn.ReLU(inplace=True)
            self.linear = nn.Linear(8, 5)

        def forward(self, x):
            x = self.act(self.norm(self.conv(x)))
            return self.linear(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))

    return Network().eval(), (torch.randn(1, 3, 8, 8),)


def sentences():
    """Six tokens [1, 6] of a table of 100 rows of 16 -> 16 -> 16 numbers each."""
    import torch
    from torch import nn

    net = nn.Sequential(nn.Embedding(100, 16), nn.Linear(16, 16, bias=False), nn.GELU())
    return net.eval(), (torch.arange(6)[None],)


def exported(model):
    import torch

    programs.prepare_torch()
    network, example = model()
    return torch.export.export(network, example), example


def moved(model, name, **options):
    """(operator, activations, weights, output) of a network quantized by a scheme."""
    program, example = exported(model)
    scheme, backend = schemes.load(name), backends.load("xnnpack")
    given = Material(calibration=[example])
    made = scheme.quantize(program, scheme.Options(**options), backend, given).program
    rows = traffic.moved(made)
    assert traffic.bytes_moved(made) == sum(row.total for row in rows)
    return [(row.operator, row.activations, row.weights, row.output) for row in rows]


def test_float_numbers_are_of_four_bytes_and_batch_norm_and_relu_are_fused():
    assert moved(convolutional, "float") == [
        ("conv2d", 768, 896, 2048),
        ("adaptive_avg_pool2d", 2048, 0, 32),
        ("linear", 32, 180, 20),
    ]


def test_integers_are_of_one_byte_and_conversions_count():
    assert moved(convolutional, "int8_static") == [QUANTIZE, CONV, POOL, LINEAR, DEQUANTIZE]


def test_one_scale_for_all_channels_is_no_traffic():
    rows = moved(convolutional, "int8_static", granularity="per_tensor")
    assert rows[1] == ("conv2d", 192, 8 * 27 + 8 * 4, 512)


def test_a_layer_in_float_after_integers_is_converted_to():
    assert moved(convolutional, "int8_static", skip=("linear",)) == [
        QUANTIZE, CONV, POOL, ("dequantize", 8, 0, 32), ("linear", 32, 180, 20),
    ]  # fmt: skip


def test_a_layer_in_float_before_integers_is_converted_from():
    assert moved(convolutional, "int8_static", skip=("conv",)) == [
        ("conv2d", 768, 896, 2048),
        ("adaptive_avg_pool2d", 2048, 0, 32),  # it stays in the form that it is given
        ("quantize", 32, 0, 8),
        LINEAR,
        DEQUANTIZE,
    ]


def test_of_a_table_only_the_rows_that_are_looked_up_are_read():
    assert moved(sentences, "float") == [
        ("embedding", 6 * 8, 6 * 16 * 4, 6 * 16 * 4),
        ("linear", 384, 16 * 16 * 4, 384),
        ("gelu", 384, 0, 384),
    ]


def test_dynamic_activations_are_read_for_their_range_first():
    assert moved(sentences, "int8_dynamic") == [
        ("embedding", 48, 384, 384),
        ("quantize", 2 * 384, 0, 96),
        ("linear", 96, 16 * 16 + 16 * 4, 384),
        ("gelu", 384, 0, 384),
    ]


def test_int8_tables_have_a_scale_for_each_row():
    rows = moved(sentences, "int8_dynamic", embeddings=True)
    assert rows[0] == ("embedding", 48, 6 * (16 + 4), 384)


def test_weights_alone_can_be_integers():
    assert moved(sentences, "int8_weight_only")[1] == ("linear", 384, 16 * 16 + 16 * 4, 384)


@pytest.mark.skipif("int8_dynamic_int4_weight" not in schemes.names(), reason="no such scheme")
def test_int4_weights_are_of_half_a_byte():
    def model():
        import torch

        net = torch.nn.Sequential(torch.nn.Linear(64, 16, bias=False), torch.nn.GELU())
        return net.eval(), (torch.randn(1, 64),)

    rows = moved(model, "int8_dynamic_int4_weight", group_size=32)
    assert rows[:2] == [
        ("quantize", 2 * 256, 0, 64),
        ("linear", 64, 64 * 16 // 2 + 2 * 16 * 4, 64),  # two groups in each of 16 rows
    ]


def test_what_picks_reads_as_much_as_it_writes_and_views_are_free():
    import torch

    class Picks(torch.nn.Module):
        def forward(self, x):
            return x.view(8, 8)[:2].transpose(0, 1).reshape(4, 4)

    program = torch.export.export(Picks(), (torch.zeros(64),))
    assert [(r.operator, r.total) for r in traffic.moved(program)] == [
        ("slice", 2 * 16 * 4),
        ("transpose", 2 * 16 * 4),
    ]
