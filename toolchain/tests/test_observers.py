"""Observers: each gives the scale and the zero point that its formula says.

What is expected is computed here anew, plainly, in numpy, from the same values or the same counts.
"""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from toolchain import observers
from toolchain.errors import UserError
from toolchain.observers import entropy, mse, percentile

# What torch and its friends warn of while they are imported is the matter of test_steps.
pytestmark = pytest.mark.filterwarnings("ignore")

EPS = 2**-12
INT8 = (-128, 127)
SCHEMES = ["affine", "symmetric"]


def observer(name, scheme="affine", limits=INT8, dtype="int8", **spec):
    """Made as torchao makes it from a QuantizationSpec."""
    import torch

    constructor = observers.load(name).constructor(eps=EPS, **spec)
    return constructor.with_args(
        dtype=getattr(torch, dtype),
        qscheme=getattr(torch, f"per_tensor_{scheme}"),
        quant_min=limits[0],
        quant_max=limits[1],
        is_dynamic=False,
    )()


def observed(name, *batches, **options):
    import torch

    made = observer(name, **options)
    for batch in batches:
        given = torch.tensor(batch, dtype=torch.float32)
        assert made(given) is given
    return made


def found(made):
    """Scale and zero point."""
    scale, zero = made.calculate_qparams()
    assert scale.shape == zero.shape == (1,)
    return float(scale), int(zero)


def affine(low, high, limits=INT8):
    scale = (max(high, 0) - min(low, 0)) / (limits[1] - limits[0])
    return scale, limits[0] - round(min(low, 0) / scale)


def bins(made):
    """Counts and edges of an observer's histogram."""
    counts = made.histogram.numpy().astype(np.float64)
    return counts, np.linspace(float(made.min_val), float(made.max_val), len(counts) + 1)


def values(kind):
    """Three batches of different ranges."""
    generator = np.random.default_rng(0)
    batches = [generator.normal(size=22_000) * width for width in (1, 1.5, 0.8)]
    if kind == "laplace":
        batches = [generator.laplace(size=22_000) * width for width in (1, 1.5, 0.8)]
    elif kind == "one-sided":
        batches = [np.maximum(batch, 0) for batch in batches]
    elif kind == "skewed":
        batches = [np.exp(batch) - 1.5 for batch in batches]
    elif kind == "outliers":
        batches[1][:3] = 60, -45, 70
    return batches


KINDS = ["gauss", "laplace", "one-sided", "skewed", "outliers"]
each_kind = pytest.mark.parametrize("kind", KINDS)
each_scheme = pytest.mark.parametrize("scheme", SCHEMES)
each_name = pytest.mark.parametrize("name", observers.names())


# ---- The folder


def test_names_are_those_of_the_files():
    assert observers.names() == [
        "entropy", "histogram", "minmax", "moving_average", "mse", "percentile",
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"unknown observer 'minmaks'\n.*'minmax'"):
        observers.load("minmaks")


def test_they_are_loaded_without_torch():
    code = (
        "import sys; from toolchain import observers;"
        "[observers.load(name) for name in observers.names()];"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- Extremes


def test_minmax_spans_all_values():
    batches = values("outliers")
    low, high = min(map(np.min, batches)), max(map(np.max, batches))
    scale, zero = affine(low, high)
    assert found(observed("minmax", *batches)) == (pytest.approx(scale, rel=1e-6), zero)
    scale, zero = found(observed("minmax", *batches, scheme="symmetric"))
    assert (scale, zero) == (pytest.approx(max(-low, high) / 127.5, rel=1e-6), 0)


def test_moving_average_weighs_each_later_sample_by_a_hundredth():
    batches = values("outliers")
    low, high = batches[0].min(), batches[0].max()
    for batch in batches[1:]:
        low, high = 0.99 * low + 0.01 * batch.min(), 0.99 * high + 0.01 * batch.max()
    scale, zero = affine(low, high)
    assert found(observed("moving_average", *batches)) == (pytest.approx(scale, rel=1e-5), zero)


def test_histogram_clips_what_costs_less_than_it_gains():
    values = ideal("laplace")
    counts = bins(observed("histogram", values))

    def error(name):
        return squared_error(counts, found(observed(name, values)))

    assert error("mse") < error("histogram") < 0.9 * error("minmax")


# ---- Percentile


@each_kind
def test_percentile_cuts_what_lies_outermost(kind):
    batches = values(kind)
    every = np.concatenate(batches)
    made = observed("percentile", *batches)
    width = (every.max() - every.min()) / 2048
    low, high = (s * np.quantile(s * every, 0.99995, method="inverted_cdf") for s in (-1, 1))
    low, high = min(low, 0), max(high, 0)
    scale, zero = found(made)
    # In a bin of the histogram, and in another when the bins of earlier batches were stretched.
    assert 255 * scale == pytest.approx(high - low, abs=4 * width)
    assert (-128 - zero) * scale == pytest.approx(low, abs=2 * width + scale / 2)

    made = observed("percentile", *batches, scheme="symmetric")
    high = np.quantile(np.abs(every), 0.9999, method="inverted_cdf")
    scale, zero = found(made)
    assert 127.5 * scale == pytest.approx(high, abs=2 * width)
    assert zero == 0


def test_percentile_is_exact_on_counts():
    # 2048 bins of width 1 from -1024 to 1024, each with a count of its own
    edges = np.arange(-1024, 1025)
    middles = edges[:-1] + 0.5
    counts = np.random.default_rng(1).integers(0, 9, size=2048)
    counts[[0, -1]] = 1
    every = np.repeat(middles, counts)
    every[0], every[-1] = -1024, 1024
    for kept in (0.9, 0.99, 0.999):
        tail = (1 + kept) / 2
        low, high = (s * np.quantile(s * every, tail, method="inverted_cdf") for s in (-1, 1))
        expected = affine(math.floor(low), math.ceil(high))
        made = observed("percentile", every, kept=kept)
        assert found(made) == (pytest.approx(expected[0], rel=1e-6), expected[1])
        high = math.ceil(np.quantile(np.abs(every), kept, method="inverted_cdf"))
        made = observed("percentile", every, kept=kept, scheme="symmetric")
        assert found(made) == (pytest.approx(high / 127.5, rel=1e-6), 0)


def test_percentile_keeps_no_more_than_it_has_to():
    import torch

    values, counts = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([1.0, 1.0, 2.0])
    found = [percentile.quantile(values, counts, share) for share in (0.25, 0.26, 0.75, 0.76, 1)]
    assert found == [1, 2, 2, 3, 3]


# ---- Mean squared error


def squared_error(histogram, quantization, limits=INT8):
    """By sampling each bin at many places."""
    (counts, edges), (scale, zero) = histogram, quantization
    places = (np.arange(100) + 0.5) / 100
    x = edges[:-1, None] + (edges[1:] - edges[:-1])[:, None] * places
    integers = np.clip(np.round(x / scale) + zero, *limits)
    return counts @ (((integers - zero) * scale - x) ** 2).mean(1)


def loss_of(function, made, scales, zeros):
    import torch

    return function(made)(torch.tensor(scales, dtype=torch.float32), torch.tensor(zeros)).numpy()


@each_kind
def test_squared_error_is_that_of_quantizing_the_histogram(kind):
    made = observed("mse", *values(kind))
    scales, zeros = np.array([0.02, 0.03, 0.11, 0.4], np.float32), [0, -128, 17, 127]
    expected = [squared_error(bins(made), pair) for pair in zip(scales, zeros, strict=True)]
    assert loss_of(mse.squared_error, made, scales, zeros) == pytest.approx(expected, rel=2e-3)


@each_kind
@pytest.mark.parametrize("limits", [INT8, (-8, 7)])
def test_mse_is_the_least_of_all_thresholds(kind, limits):
    made = observed("mse", *values(kind), limits=limits)
    low, high = min(float(made.min_val), 0), max(float(made.max_val), 0)
    shares = np.geomspace(0.02, 1, 23)
    ranges = [affine(a * low, b * high, limits) for a in shares for b in shares]
    least = brute_force(made, ranges)
    assert squared_error(bins(made), found(made), limits) <= 1.002 * least

    made = observed("mse", *values(kind), limits=limits, scheme="symmetric")
    reach = max(-low, high) / ((limits[1] - limits[0]) / 2)
    least = brute_force(made, [(share * reach, 0) for share in np.geomspace(0.02, 1, 400)])
    assert squared_error(bins(made), found(made), limits) <= 1.002 * least


def brute_force(made, ranges):
    """The least error of candidates: found by few samples of each bin, reckoned by many."""
    counts, edges = bins(made)
    limits = made.quant_min, made.quant_max
    x = (edges[:-1, None] + (edges[1:] - edges[:-1])[:, None] * [0.1, 0.3, 0.5, 0.7, 0.9]).ravel()
    weights, used = np.repeat(counts, 5), np.repeat(counts > 0, 5)
    x, weights = x[used], weights[used]

    def rough(candidate):
        scale, zero = candidate
        integers = np.clip(np.round(x / scale) + zero, *limits)
        return weights @ ((integers - zero) * scale - x) ** 2

    return squared_error((counts, edges), min(ranges, key=rough), limits)


def ideal(distribution):
    """A million values of a distribution of width 1, without chance."""
    import torch

    family = {"laplace": torch.distributions.Laplace, "gauss": torch.distributions.Normal}
    places = (torch.arange(1_000_000, dtype=torch.float64) + 0.5) / 1_000_000
    return family[distribution](0.0, 1.0).icdf(places).numpy()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("distribution", ["laplace", "gauss"])
def test_mse_clips_where_the_closed_form_says(distribution, bits):
    """Banner et al., arXiv:1810.05723: error(a) = clipping(a) + a^2 / (3 * 4^bits) at its least."""

    def error(a):
        clipping = 2 * math.exp(-a)
        if distribution == "gauss":
            tail = math.erfc(a / math.sqrt(2)) / 2
            density = math.exp(-a * a / 2) / math.sqrt(2 * math.pi)
            clipping = 2 * ((1 + a * a) * tail - a * density)
        return clipping + a * a / (3 * 4**bits)

    best = min(np.linspace(1, 15, 2801), key=error)
    limits = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    scale, zero = found(observed("mse", ideal(distribution), limits=limits))
    assert zero in (-1, 0)
    assert scale * (2**bits - 1) / 2 == pytest.approx(best, rel=0.02)


# ---- Entropy


def divergence(histogram, quantization, limits=INT8):
    """D(P || Q) after Migacz, bin by bin."""
    (counts, edges), (scale, zero) = histogram, quantization
    counts = counts.copy()
    for k in range(len(counts)):
        if edges[k] <= 0 < edges[k + 1]:
            around = [counts[n] for n in (k - 1, k + 1) if 0 <= n < len(counts)]
            counts[k] = sum(around) / len(around)
            break
    middles = (edges[:-1] + edges[1:]) / 2
    integers = np.round(middles / scale) + zero
    inside = np.flatnonzero((integers >= limits[0]) & (integers <= limits[1]))
    p = counts[inside].copy()
    p[0] += counts[: inside[0]].sum()
    p[-1] += counts[inside[-1] + 1 :].sum()
    q = np.zeros_like(p)
    for level in np.unique(integers[inside]):
        members = (integers[inside] == level) & (p > 0)
        if members.any():
            count = counts[inside][integers[inside] == level].sum()
            q[members] = (count or 0.5) / members.sum()
    p, q = p / p.sum(), q / q.sum()
    return float(sum(p[p > 0] * np.log(p[p > 0] / q[p > 0])))


@each_kind
def test_divergence_is_that_of_the_levels(kind):
    made = observed("entropy", *values(kind))
    width = (float(made.max_val) - float(made.min_val)) / 2048
    scales = np.array([1.03, 1.7, 3.1, 8.4], np.float32) * np.float32(width)
    zeros = [0, -128, 17, 127]
    expected = [divergence(bins(made), pair) for pair in zip(scales, zeros, strict=True)]
    assert loss_of(entropy.divergence, made, scales, zeros) == pytest.approx(expected, rel=1e-6)


def test_divergence_wants_a_bin_for_each_level():
    made = observed("entropy", *values("gauss"))
    width = (float(made.max_val) - float(made.min_val)) / 2048
    fine, coarse = loss_of(entropy.divergence, made, [0.99 * width, 1.01 * width], [0, 0])
    assert math.isinf(fine)
    assert math.isfinite(coarse)


@pytest.mark.slow
@each_kind
def test_entropy_is_the_least_of_all_thresholds(kind):
    made = observed("entropy", *values(kind), scheme="symmetric")
    counts, edges = bins(made)
    width = edges[1] - edges[0]
    reach = max(-edges[0], edges[-1]) / 127.5
    candidates = [(s, 0) for s in np.linspace(width, reach, 300)]
    least = min(divergence((counts, edges), c) for c in candidates)
    assert divergence((counts, edges), found(made)) <= 1.01 * least

    made = observed("entropy", *values(kind))
    low, high = min(edges[0], 0), max(edges[-1], 0)
    shares = np.linspace(0.1, 1, 15)
    candidates = [affine(a * low, b * high) for a in shares for b in shares]
    least = min(divergence((counts, edges), c) for c in candidates if c[0] >= width)
    assert divergence((counts, edges), found(made)) <= 1.01 * least


def test_entropy_clips_outliers_and_no_zeros_draw_it_in():
    outliers = found(observed("entropy", *values("outliers")))[0]
    assert outliers < 0.2 * found(observed("minmax", *values("outliers")))[0]
    positive = [batch[batch > 0] for batch in values("gauss")]
    sparse = [np.concatenate([batch, np.zeros(9 * len(batch))]) for batch in positive]
    few, many = (found(observed("entropy", *batches))[0] for batches in (positive, sparse))
    assert many == pytest.approx(few, rel=0.1)


# ---- All of them


@each_name
@each_scheme
@pytest.mark.parametrize(("dtype", "limits"), [("int8", INT8), ("uint8", (0, 255))])
@pytest.mark.parametrize(
    "batches",
    [
        [np.zeros(9)],
        [np.zeros(9), np.full(4, 2.0)],
        [np.full(9, 2.0)],
        [np.full(9, -3.0), np.full(9, -3.0)],
        [np.array([0.25])],
        [np.array([1.0, -2.0, 0.5])],
        [np.array([1.0, 2.0]), np.array([-7.0, 3.0])],
        [np.linspace(5, 6, 1000)],
        [np.linspace(-6, 0, 1000)],
        [np.append(np.linspace(-1, 1, 1000), 1e6)],
        [np.linspace(-1e-6, 1e-6, 100)],
    ],
    ids=lambda batches: f"{batches[0][:2]}x{len(batches)}",
)
def test_odd_values_give_a_range_that_holds_zero(name, scheme, dtype, limits, batches):
    import torch

    made = observed(name, *batches, scheme=scheme, dtype=dtype, limits=limits)
    scale, zero = found(made)
    assert scale >= EPS
    assert limits[0] <= zero <= limits[1]
    low, high = min(map(np.min, batches)), max(map(np.max, batches))
    reach = max(-low, high)
    if scheme == "symmetric":
        assert zero == (0 if dtype == "int8" else 127)
        low, high = -reach, reach
    assert 255 * scale <= max(high, 0) - min(low, 0) + 256 * EPS
    if len({*np.concatenate(batches)}) == 1:  # a constant is no outlier
        value = torch.tensor(batches[0]).float()
        back = torch.fake_quantize_per_tensor_affine(value, scale, zero, *limits)
        assert back.numpy() == pytest.approx(value.numpy(), abs=scale)


@each_name
def test_copies_go_on_by_themselves(name):
    import torch

    batches = values("skewed")
    made = observed(name, batches[0])
    before = found(made)
    copied = copy.deepcopy(made).to("cpu")
    copied(torch.tensor(10 * batches[1]).float())
    assert found(made) == before
    assert found(copied) != before
    again = observer(name)
    again.load_state_dict(copied.state_dict())
    assert found(again) == found(copied)


@each_name
def test_more_eps_is_a_wider_scale(name):
    import torch

    made = observers.load(name).constructor(eps=0.5)(dtype=torch.int8)
    made(torch.linspace(-1, 1, 100))
    assert found(made)[0] == 0.5


@each_name
def test_in_fake_quantization(name):
    import torch
    from torchao.quantization.pt2e.fake_quantize import FakeQuantize

    (x, *_) = values("skewed")
    x = torch.tensor(x).float()
    fake = FakeQuantize.with_args(observer=observers.load(name).constructor(eps=EPS)).with_args(
        dtype=torch.int8, qscheme=torch.per_tensor_affine, quant_min=-128, quant_max=127
    )()
    rounded = fake(x)
    scale, zero = found(observed(name, x.numpy()))
    expected = torch.fake_quantize_per_tensor_affine(x, scale, zero, -128, 127)
    assert rounded.equal(expected)


@pytest.mark.slow
@each_name
@each_scheme
def test_in_a_program(name, scheme):
    """The scale that PT2E writes into a program is the observer's, over all samples."""
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    from toolchain import programs

    programs.prepare_torch()
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.ReLU()).eval()
    samples = [torch.tensor(b[:6400].reshape(100, 64)).float() for b in values("skewed")]
    config = get_symmetric_quantization_config()
    activation = replace(
        config.input_activation,
        qscheme=getattr(torch, f"per_tensor_{scheme}"),
        observer_or_fake_quant_ctr=observers.load(name).constructor(eps=EPS),
    )
    config = replace(config, input_activation=activation, output_activation=activation)
    exported = torch.export.export(model, (samples[0],)).module(check_guards=False)
    prepared = prepare_pt2e(exported, XNNPACKQuantizer().set_global(config))
    for sample in samples:
        prepared(sample)
    converted = convert_pt2e(prepared)
    (first,) = next(n for n in converted.graph.nodes if n.op == "placeholder").users
    expected = found(observed(name, *(sample.numpy() for sample in samples), scheme=scheme))
    assert (first.args[1], first.args[2]) == (pytest.approx(expected[0], rel=1e-6), expected[1])
