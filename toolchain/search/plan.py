"""What is tried, in which order, and when to stop: the practice of quantizing by hand.

    float       always: it is what the others are measured against, and the answer if none of them
                holds
    usual       dynamic int8 for models of linear and recurrent layers, with int4 weights too, and
                static int8 as well, which moves less; for convolutional ones static int8 alone
    observers   other ranges of activations, if static int8 did not hold with the first
    storage     narrower numbers in memory only, and
    mixed       the most sensitive layers in float, one more each time, until the limit holds:
                if nothing has held that computes on integers throughout
    training    quantization-aware training, if static int8 did not hold and the recipe can train

Training comes last, for it takes the longest; but it is tried even where something has held: its
program has the operators of static int8, one for one, and costs as little. Where static int8 has
held, it could only cost the same; so could other observers, which is why the first that holds ends
their stage.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from toolchain import schemes
from toolchain.errors import UserError

if TYPE_CHECKING:
    from toolchain.backends import Abilities
    from toolchain.schemes.auto import Options
    from toolchain.search.choice import Tried

STATIC, DYNAMIC, INT4, TRAINED = (
    "int8_static", "int8_dynamic", "int8_dynamic_int4_weight", "int8_qat",
)  # fmt: skip
ON_INTEGERS = (STATIC, DYNAMIC, INT4)  # what mixed precision may start from
STORAGE = ("int8_weight_only", "float16")


@dataclass(frozen=True)
class Candidate:
    """A variant to try. options: those that are not the scheme's defaults. why: it is tried."""

    stage: str
    scheme: str
    options: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""

    @property
    def name(self) -> str:
        """Such as `int8_static observer=mse`."""
        return " ".join([self.scheme, *(f"{k}={_plain(v)}" for k, v in self.options.items())])

    def variant(self) -> dict[str, Any]:
        """As a recipe's variant, with all options of its scheme."""
        kind = schemes.load(self.scheme).Options
        options = kind.model_validate_json(json.dumps(dict(self.options)))
        return {"scheme": self.scheme, "options": options.model_dump(mode="json")}


@dataclass(frozen=True)
class Given:
    """What the search works with. operators: of the model, such as `conv2d`, and how many."""

    operators: Mapping[str, int]
    backend: str
    able: Abilities
    calibration: bool
    training: bool

    def count(self, *words: str) -> int:
        return sum(n for name, n in self.operators.items() if any(word in name for word in words))

    @property
    def convolutional(self) -> bool:
        """Whether convolutions are most of the layers with weights."""
        return self.count("conv") >= max(1, self.count("linear", "lstm", "gru", "rnn"))


@dataclass
class Search:
    """attempt: builds and judges a candidate. sensitive: names of the layers of one that was tried,
    the most sensitive first. tried, passed_over: what was done, and what was not and why, in order.
    """

    given: Given
    options: Options
    attempt: Callable[[Candidate], Tried]
    sensitive: Callable[[Candidate], Sequence[str]]
    tried: list[Tried] = field(default_factory=list)
    passed_over: list[dict[str, str]] = field(default_factory=list)

    def run(self) -> list[Tried]:
        """All stages."""
        self._try(Candidate("float", "float", {}, "the model as it is"))
        for candidate in self._usual():
            self._try(candidate)
        if not self._hindrance(STATIC, {}) and not self._held(STATIC):
            self._until_one_holds(self._observers())
        if not self._held(*ON_INTEGERS):
            for scheme in STORAGE:
                if self._possible("storage", scheme, {}):
                    self._try(Candidate("storage", scheme, {}, "fewer bytes, float arithmetic"))
            self._until_one_holds(self._mixed())
        self._training()
        return self.tried

    def _usual(self) -> list[Candidate]:
        static = Candidate(
            "usual",
            STATIC,
            {"observer": self.options.observers[0]},
            "integers throughout move the least",
        )
        if self.given.convolutional:
            why = "the practice for convolutions: ranges of activations fixed, a scale per channel"
            listed = [Candidate("usual", STATIC, static.options, why)]
        else:
            why = "the practice for linear and recurrent layers: ranges found at each inference"
            tables = {"embeddings": True} if self.given.count("embedding") else {}
            listed = [
                Candidate("usual", DYNAMIC, tables, why),
                Candidate("usual", INT4, tables, "half the bytes of the weights"),
                static,
            ]
        return [c for c in listed if self._possible("usual", c.scheme, c.options)]

    def _observers(self) -> Iterator[Candidate]:
        for observer in self.options.observers[1:]:
            yield Candidate(
                "observers", STATIC, {"observer": observer}, "the ranges before did not hold"
            )

    def _mixed(self) -> Iterator[Candidate]:
        """From the best that computes on integers: sensitive layers in float, one by one."""
        bases = [
            one for one in self.tried if one.candidate.scheme in ON_INTEGERS and not one.trouble
        ]
        if not bases or not self.options.max_float_layers:
            why = "nothing computes on integers" if not bases else "max_float_layers = 0"
            self.passed_over.append({"stage": "mixed", "scheme": "", "why": why})
            return
        best = max(bases, key=_quality).candidate
        layers = list(self.sensitive(best))
        # With all of them in float nothing would be quantized.
        for count in range(1, min(self.options.max_float_layers, len(layers) - 1) + 1):
            worst = layers[:count]
            why = f"{worst[-1]} is number {count} by the SQNR that quantizing it alone costs"
            yield Candidate("mixed", best.scheme, {**best.options, "skip": worst}, why)

    def _training(self) -> None:
        if self._held(STATIC):
            return
        if not self.options.train:
            why = "train = false"
            self.passed_over.append({"stage": "training", "scheme": TRAINED, "why": why})
        elif self._possible("training", TRAINED, {}):
            self._try(Candidate("training", TRAINED, {}, "static int8 did not hold without"))

    def _try(self, candidate: Candidate) -> bool:
        self.tried.append(self.attempt(candidate))
        return self.tried[-1].passes

    def _until_one_holds(self, candidates: Iterable[Candidate]) -> None:
        for candidate in candidates:
            if self._try(candidate):
                return

    def _held(self, *names: str) -> bool:
        """Whether one of these schemes has held with all layers quantized."""
        return any(
            one.passes and one.candidate.scheme in names and one.candidate.stage != "mixed"
            for one in self.tried
        )

    def _possible(self, stage: str, scheme: str, options: Mapping[str, Any]) -> bool:
        """Whether a scheme can be tried; told if it cannot."""
        why = self._hindrance(scheme, options)
        if why:
            self.passed_over.append({"stage": stage, "scheme": scheme, "why": why})
        return not why

    def _hindrance(self, scheme: str, options: Mapping[str, Any]) -> str:
        if scheme not in schemes.names():
            return "there is no such scheme here"
        uses = schemes.load(scheme).USES
        if "calibration" in uses and not self.given.calibration:
            return "the recipe has no calibration data"
        if "training" in uses and not self.given.training:
            return "the recipe does not say how to train: [training]"
        try:
            schemes.check_able(scheme, options, self.given.backend, self.given.able, scheme)
        except UserError as error:
            return error.message
        return ""


def _quality(one: Tried) -> tuple[float, float]:
    noise = one.figures["sqnr_db"]
    return one.figures["metric"], float("inf") if noise is None else noise


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
