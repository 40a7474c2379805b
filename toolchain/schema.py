"""The nouns of Slipway as frozen types, decoded from TOML. Nothing here imports torch.

    Recipe ─┬─ Model       what is built: a factory or an exported program, its inputs and weights
            ├─ Data        calibration and evaluation samples, and the metric
            ├─ Training    how the model was trained: for quantization-aware training
            ├─ Variant*    one way of quantizing: a scheme and its options
            ├─ Sensitivity on how many samples layers are looked at one by one
            ├─ Measure     how long and on how many samples a device works
            └─ Checks      the limits that a verdict is taken from
    Target ──── a kind of machine;   Device ──── one unit of it

A wrong key, type or value is one `UserError` that names the file, the place and the good values.
"""

from __future__ import annotations

import json
import re
import tomllib
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pydantic
import pydantic_core
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from toolchain.atomic import damaged
from toolchain.errors import UserError, nearest

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


class Frozen(pydantic.BaseModel):
    """A value: immutable, hashable, no unknown keys, no silent conversion."""

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False
    )

    def canonical(self) -> str:
        """The value as JSON with a fixed order of keys: equal values give equal text."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


class Tensor(Frozen):
    """One input of the model. shape: with the batch dimension, all sizes fixed."""

    shape: tuple[PositiveInt, ...]
    dtype: Literal[
        "float32", "float16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"
    ] = "float32"


class Model(Frozen):
    """factory: `file.py:function` or `package.module:function`, () -> torch.nn.Module.
    program: an exported `.pt2` file instead of a factory.
    weights: `.safetensors` or `.pt` state dict, loaded into what the factory returns.
    sha256: digest of `weights` (or of `program`), checked before loading.
    files: other files that the factory reads; a change of them rebuilds.
    packages: installed distributions that the model comes from; another version rebuilds.
    """

    factory: str | None = None
    program: str | None = None
    inputs: tuple[Tensor, ...] = Field(min_length=1)
    weights: str | None = None
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    files: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()


class Data(Frozen):
    """calibration: () -> iterable of input tuples; evaluation: () -> iterable of (inputs, label).
    metric: `top1`, `agreement` (top-1 agreement with the float model) or `file.py:function`,
    (outputs, labels) or (outputs, labels, reference) -> float where more is better; reference:
    the float model's outputs.
    files: what the functions read; a change of them rebuilds.
    """

    calibration: str | None = None
    evaluation: str
    metric: str = "agreement"
    files: tuple[str, ...] = ()


class Training(Frozen):
    """How the model was trained, so that a scheme can train it further.

    samples: () -> iterable of (inputs, label), all that it was trained on.
    loss: `cross_entropy` (of the first output), or `file.py:function`, (outputs, labels) -> scalar.
    augment: (*inputs) -> inputs of the same shapes, for each batch; chance from torch's generator.
    epochs, rate, batch, seed: of the original training; rate is its largest.
    """

    samples: str
    loss: str = "cross_entropy"
    augment: str | None = None
    epochs: PositiveInt
    rate: PositiveFloat
    batch: PositiveInt = 64
    seed: int = 0


class Measure(Frozen):
    """How a device is measured.

    samples: at most so many evaluation samples run on a device (all of them if absent).
    emulated_samples: the same for an emulated board, where float models take seconds a sample.
    warmup, iterations: inferences before, and in, the count of instructions.
    latency_samples: inferences that latency is taken from, on real hardware.
    rounds: turns that programs take there, so that what disturbs one disturbs all.
    pin: whether a program stays on the same cores there, the last ones that it may use.
    timeout: seconds for one run on the device.
    """

    threads: PositiveInt = 1
    warmup: NonNegativeInt = 1
    iterations: PositiveInt = 5
    latency_samples: PositiveInt = 1024
    rounds: PositiveInt = 8
    pin: bool = True
    samples: PositiveInt | None = None
    emulated_samples: PositiveInt | None = None
    timeout: PositiveFloat = 600.0


class Sensitivity(Frozen):
    """samples: at most so many evaluation samples are looked at, layer by layer."""

    samples: PositiveInt = 64


class Checks(Frozen):
    """Limits; an absent one is measured and reported, not judged.

    max_drop: largest loss of the metric against the float model on the same samples.
    min_metric: least value of the metric on the device.
    min_sqnr: least SQNR in dB of the outputs against the float model's.
    min_cosine: least cosine, over the samples, of an output to the float model's.
    parity: `exact`, or the least SQNR in dB between device and host outputs of one program.
    max_*: bytes, or user-space instructions per inference on an emulated board.
    max_latency_ms: p50 on real hardware.
    Against earlier nights, as parts of what it was (see `toolchain.history.gate`):
    max_cost_increase: of what is exact: sizes, and on emulated boards instructions and memory.
    max_latency_increase: of the times on real hardware, where a test also says slower.
    """

    max_drop: float | None = None
    min_metric: float | None = None
    min_sqnr: float | None = None
    min_cosine: float | None = None
    parity: Literal["exact"] | PositiveFloat | None = None
    max_model_bytes: PositiveInt | None = None
    max_bundle_bytes: PositiveInt | None = None
    max_rss_bytes: PositiveInt | None = None
    max_instructions: PositiveInt | None = None
    max_latency_ms: PositiveFloat | None = None
    max_cost_increase: NonNegativeFloat = 0.0
    max_latency_increase: NonNegativeFloat = 0.05


class Settings(Frozen):
    """What holds in one place only: on a target, or with a backend."""

    measure: Measure = Measure()
    checks: Checks = Checks()


class Variant(Frozen):
    """options: the scheme's own keys, decoded by the scheme (see `toolchain.schemes`).
    by_name: it is built only when asked for: variant=NAME, or variant=all.
    backends: of the target's, those that it is built with; all that can do it, if absent.
    on: by the name of a target or of a backend, what is measured and checked otherwise there.
    """

    scheme: str
    by_name: bool = False
    backends: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] | None = None
    options: dict[str, Any] = {}
    measure: Measure = Measure()
    checks: Checks = Checks()
    on: dict[str, Settings] = {}

    @pydantic.model_validator(mode="before")
    @classmethod
    def _gather_options(cls, table: Any) -> Any:
        if not isinstance(table, dict) or "options" in table:
            return table
        own = {key: value for key, value in table.items() if key in cls.model_fields}
        return own | {"options": {k: v for k, v in table.items() if k not in own}}


class Recipe(Frozen):
    """by_name: it is built only when asked for: recipe=NAME, or recipe=all.
    backends, on: as a variant's, for all variants.
    """

    summary: str
    by_name: bool = False
    targets: tuple[str, ...] = Field(min_length=1)
    backends: tuple[str, ...] | None = Field(default=None, min_length=1)
    model: Model
    data: Data
    training: Training | None = None
    variants: dict[str, Variant] = Field(min_length=1)
    sensitivity: Sensitivity = Sensitivity()
    measure: Measure = Measure()
    checks: Checks = Checks()
    on: dict[str, Settings] = {}


class TargetDevice(Frozen):
    """default: the device that is used when none is named: `qemu:cortex-a72`, `local`."""

    default: str


class Isa(Frozen):
    """The least CPU that a target's programs run on (see `toolchain.isa`).

    level: of the x86-64 psABI. extensions: beyond it, as /proc/cpuinfo names them.
    """

    level: str
    extensions: tuple[str, ...] = ()


class Target(Frozen):
    """A kind of machine.

    triple: prefix of the cross compiler and its tools.
    wheel_platform: platform tag of the wheels whose C++ libraries are shipped.
    isa: the floor that compiled programs obey; without it, that of the architecture.
    measure: how its real devices are measured, unless a recipe says otherwise.
    by_name: it is built for only when asked for: target=NAME.
    """

    summary: str
    by_name: bool = False
    arch: Literal["aarch64", "x86_64"]
    triple: str
    wheel_platform: str
    backends: tuple[str, ...] = Field(min_length=1)
    isa: Isa | None = None
    measure: Measure = Measure()
    device: TargetDevice


class Device(Frozen):
    """One unit. driver: a file of `toolchain/devices`.

    cpu: an emulated board's CPU model.
    host, port, user, key, known_hosts: where a unit behind SSH stands and how to log in; `key`
    and `known_hosts` are paths, relative to the file that names them.
    coordinator, place: of a unit that labgrid gives out: `host:port`, and its name there.
    tags: what units are picked by, and told apart by within a target; nothing that is measured.
    """

    name: str
    driver: Literal["qemu", "ssh", "local", "labgrid"]
    target: str | None = None
    tags: tuple[Annotated[str, Field(pattern=NAME)], ...] = Field(default=(), exclude=True)
    cpu: str | None = None
    host: str | None = None
    port: int = Field(default=22, ge=1, le=65535)
    user: str | None = None
    key: str | None = None
    known_hosts: str | None = None
    coordinator: str | None = None
    place: str | None = None

    @property
    def emulated(self) -> bool:
        """Whether it counts instructions exactly, and knows no time."""
        return self.driver == "qemu"


T = TypeVar("T", bound=pydantic.BaseModel)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; errors carry the line."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError("no such file", where=shown(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {error}", where=shown(path)) from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"is not TOML: {error}", where=shown(path)) from None


def decode(kind: type[T], table: dict[str, Any], where: str) -> T:
    """`table` as a value of `kind`, or a UserError about the first thing wrong in it."""
    try:
        return kind.model_validate_json(json.dumps(table, default=str))
    except pydantic.ValidationError as error:
        raise _explained(kind, error, where) from None


def decode_json(kind: type[T], path: Path) -> T:
    """A value that an earlier step of the build wrote with `Frozen.canonical`."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except pydantic.ValidationError as error:
        raise damaged(path, error) from None


def shown(path: Path) -> str:
    """A path as a person would type it from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def check_name(name: str, what: str, where: str) -> None:
    if not re.match(NAME, name):
        raise UserError(
            f"'{name}' cannot name a {what}",
            where=where,
            hint="names start with a letter or digit and go on with letters, digits, _ . -",
        )


def _explained(
    kind: type[pydantic.BaseModel], error: pydantic.ValidationError, where: str
) -> UserError:
    """The first thing wrong, as a message; the branches of a union are told together."""
    found = [(_without_branches(e["loc"]), e) for e in error.errors(include_url=False)]
    loc, first = found[0]
    *section, key = [str(part) for part in loc] or [""]
    place = f"[{'.'.join(section)}].{key}" if section else key
    hint = ""
    if first["type"] == "extra_forbidden":
        message = f"unknown key '{key}'"
        hint = nearest(key, _fields(kind, loc[:-1]))
    elif first["type"] == "missing":
        message = f"the key '{key}' is missing"
    else:
        wishes = [_wish(e) for place, e in found if place == loc]
        message = f"{first['input']!r} should be {', or '.join(wishes)}"
    others = {place for place, _ in found if place != loc[: len(place)]}
    if others:
        hint = f"{hint}\n  ({len(others)} more wrong in this file)".lstrip("\n ")
    return UserError(message, where=f"{where}: {place}" if place else where, hint=hint)


def _wish(error: pydantic_core.ErrorDetails) -> str:
    """What a value should have been: pydantic says `Input should be a valid integer`."""
    if error["type"] == "string_pattern_mismatch":
        return f"text of the form {error['ctx']['pattern']}"
    if error["type"] == "too_short":
        return "a list that is not empty"
    said = re.sub("^.* should (be |have )?", "", error["msg"])
    return said.replace("valid dictionary", "table").replace("an object", "a table")


def _without_branches(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """pydantic names the branch of a union in its path: `literal['exact']`, `constrained-float`."""
    return tuple(
        part for part in loc if not (isinstance(part, str) and re.search(r"\[|^constrained-", part))
    )


def _fields(kind: type[pydantic.BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Keys that are known at a place inside `kind`."""
    current: Any = kind
    for part in loc:
        if isinstance(current, type) and issubclass(current, pydantic.BaseModel):
            current = current.model_fields[str(part)].annotation
        else:
            current = _element(current)
        if typing.get_origin(current) in (typing.Union, types.UnionType):
            current = next(a for a in typing.get_args(current) if a is not type(None))
    return list(current.model_fields)


def _element(container: Any) -> Any:
    """Type of the values of a dict or tuple annotation."""
    args = typing.get_args(container)
    return args[1] if typing.get_origin(container) is dict else args[0]
