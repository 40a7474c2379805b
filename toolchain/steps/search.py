"""Find the variant that `scheme = "auto"` stands for: the cheapest that holds the accuracy.

The result is an ordinary variant, which the quantize step takes; what was tried is told beside it.
Each finished candidate is kept, so that a step that was stopped goes on where it was.
"""

from __future__ import annotations

import json
from pathlib import Path

from toolchain import backends, devices, metrics, programs, schema, stats
from toolchain.atomic import write_bytes, write_json
from toolchain.errors import UserError
from toolchain.samples import load
from toolchain.schema import Variant, decode_json
from toolchain.schemes import auto
from toolchain.search import choice, kept
from toolchain.search import report as reports
from toolchain.search.choice import Limit, Tried
from toolchain.search.plan import Candidate, Given, Search
from toolchain.search.trial import Inputs, Trial
from toolchain.steps.main import NONE, say, step


def run(
    *,
    model: Path,
    variant: Path,
    data: Path,
    reference: Path,
    target: Path,
    runner: Path,
    runtime: Path,
    device: Path,
    measure: Path,
    tools: list[Path],
    backend: str,
    metric: str,
    folder: Path,
    recipe: str,
    variant_name: str,
    target_name: str,
    out: Path,
    report: Path,
    picture: Path,
    calibration: Path = NONE,
    training: Path = NONE,
    samples: Path = NONE,
    settings: Path = NONE,
) -> None:
    """Write the variant that was chosen, what was tried, and a picture of accuracy against cost.

    variant: with the options of `schemes.auto`. reference: the float model's outputs over `data`.
    runner: with `lib` beside it; runtime: what is in there. device, measure: on which costs are
    taken, and how.
    training, samples, settings: as the quantize step takes them.
    """
    programs.prepare_torch()
    options = auto.Options.model_validate_json(json.dumps(decode_json(Variant, variant).options))
    limit = Limit(options.largest_drop, options.min_metric)
    floating = _of_float_model(reference, data, metric, folder)
    _check_floor(limit, floating)
    trained = {"training": training, "samples": samples, "settings": settings}
    inputs = Inputs(
        model, data, reference, target, runner, runtime, device, measure, tools, folder, backend,
        metric, recipe, target_name, calibration, trained if training != NONE else {},
    )  # fmt: skip
    trial = Trial(inputs, limit, kept.Kept(out.parent / "tried", _digest(inputs, variant)))
    given = Given(
        trial.operators(),
        backend,
        backends.load(backend).ABILITIES,
        calibration=calibration != NONE,
        training=training != NONE,
    )
    who = f"{recipe} {variant_name} {backend} {decode_json(schema.Device, device).name}"
    say(f"{who}: the cheapest program with {limit}; float has {floating:.4f}")

    def attempt(candidate: Candidate) -> Tried:
        say(f"{candidate.stage}: {candidate.name}: {candidate.why}")
        one = trial.attempt(candidate)
        say(f"  {_outcome(one, trial.emulated)}")
        return one

    search = Search(given, options, attempt, trial.sensitive)
    tried = search.run()
    chosen = choice.chosen(tried, trial.emulated)
    found = reports.record(
        tried,
        chosen,
        limit=limit,
        emulated=trial.emulated,
        metric=metric,
        floating=floating,
        samples=len(load(reference)["output.0"]),
        passed_over=search.passed_over,
    )
    title = f"{who}: {chosen.candidate.name} is chosen"
    reports.picture(found, limit.floor(floating), picture, title)
    write_json(report, found)
    write_bytes(out, json.dumps(chosen.candidate.variant(), sort_keys=True).encode())
    print(reports.page(found, who), flush=True)


def _of_float_model(reference: Path, data: Path, metric: str, folder: Path) -> float:
    outputs = load(reference)
    exact = stats.first(outputs, len(outputs["output.0"]))
    return metrics.find(metric, folder)(exact, load(data).get("label"), exact)


def _check_floor(limit: Limit, floating: float) -> None:
    if limit.min_metric is not None and limit.min_metric > floating:
        raise UserError(
            f"the float model itself has {floating:.4f}, less than min_metric = "
            f"{limit.min_metric:g}",
            where="auto",
            hint=f"take a floor of {floating:.4f} at most, or give max_drop instead",
        )


def _digest(inputs: Inputs, variant: Path) -> str:
    """Of all that the results of every candidate depend on.

    Counts of instructions are exact on any host. Latency is not: it is reused by the very same
    search only.
    """
    unit = decode_json(schema.Device, inputs.device)
    files = [*inputs.files(), *devices.depends_on(unit), *kept.source()]
    files += sorted(inputs.folder.rglob("*.py"))  # metric, loss and augmentation
    words = [inputs.backend, inputs.metric, inputs.recipe, inputs.target_name]
    if not unit.emulated:
        words.append(variant.read_text())
    return kept.digest_of(files, *words)


def _outcome(one: Tried, emulated: bool) -> str:
    if one.trouble:
        return one.trouble.splitlines()[0]
    words = [f"drop {one.figures['drop']:+.4f}", "holds" if one.passes else "does not hold"]
    words += [
        f"{one.figures[name]:,} {choice.WORDS[name]}"
        for name in choice.COSTS[emulated]
        if one.figures[name] is not None
    ]
    return ", ".join(words)


if __name__ == "__main__":
    step(run)
