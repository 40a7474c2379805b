"""What a search tried and chose: as JSON, as a table, and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from toolchain import pictures
from toolchain.search import choice
from toolchain.search.choice import Limit, Tried

SCHEMA = 1
SELECTED_ON = (
    "each candidate was looked at with the samples that the chosen one is judged by: where these "
    "are few, its accuracy on others may be a little less"
)


def record(
    tried: Sequence[Tried],
    chosen: Tried,
    *,
    limit: Limit,
    emulated: bool,
    metric: str,
    floating: float,
    samples: int,
    passed_over: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """All of it. floating: the float model's metric, by which drops count."""
    on_front = choice.front(tried, emulated)
    return {
        "schema": SCHEMA,
        "metric": metric,
        "metric_float": floating,
        "limit": {"max_drop": limit.max_drop, "min_metric": limit.min_metric},
        "rule": choice.rule(emulated, limit),
        "costs": list(choice.COSTS[emulated]),
        "device": chosen.figures["device"],
        "selected_on": {"data": "evaluation", "samples": samples, "note": SELECTED_ON},
        "chosen": chosen.candidate.name,
        "tried": [
            {
                "stage": one.candidate.stage,
                "why": one.candidate.why,
                "name": one.candidate.name,
                **one.candidate.variant(),
                **{name: value for name, value in one.figures.items() if name != "device"},
                "passes": one.passes,
                "trouble": one.trouble,
                "on_front": one in on_front,
                "chosen": one is chosen,
            }
            for one in tried
        ],
        "not_tried": list(passed_over),
        "findings": findings(tried, chosen, limit, emulated),
    }


def findings(tried: Sequence[Tried], chosen: Tried, limit: Limit, emulated: bool) -> list[str]:
    """What a reader should not have to look for."""
    said = []
    floating = tried[0]
    if chosen is floating:
        said.append(f"nothing that was tried has {limit} and is cheaper than the float model")
    elif choice.measured(floating, emulated):
        said += [
            f"{chosen.candidate.name} is not below the float model in {choice.WORDS[name]}: "
            f"{_number(chosen.figures[name])}, and float {_number(floating.figures[name])}"
            for name in choice.COSTS[emulated]
            if chosen.figures[name] >= floating.figures[name]
        ]
    said += [
        f"{one.candidate.name} could not be used: {one.trouble.splitlines()[0]}"
        for one in tried
        if one.trouble
    ]
    return said


def page(found: Mapping[str, Any], who: str) -> str:
    """For the console: a table, what was not tried, the findings and the rule."""
    costs = found["costs"]
    rows = [
        [
            "*" if row["chosen"] else "",
            row["stage"],
            row["name"],
            _number(row["metric"]),
            "" if row["drop"] is None else f"{row['drop']:+.4f}",
            "" if row["sqnr_db"] is None else f"{row['sqnr_db']:.1f}",
            *(_number(row[name]) for name in costs),
            "no: trouble" if row["trouble"] else "yes" if row["passes"] else "no",
            "yes" if row["on_front"] else "",
        ]
        for row in found["tried"]
    ]
    headers = ["", "stage", "tried", found["metric"], "drop", "SQNR dB"]
    headers += [name.replace("_", " ") for name in costs] + ["holds", "front"]
    lines = [f"{who}: what was tried, in order; * is chosen", tabulate(rows, headers)]
    lines += [
        f"not tried: {row['scheme'] or row['stage']}: {row['why']}" for row in found["not_tried"]
    ]
    lines += [f"finding: {text}" for text in found["findings"]]
    samples = found["selected_on"]["samples"]
    lines.append(f"Chosen {found['rule']}.")
    lines.append(f"Accuracy over {samples} evaluation samples, on this host.")
    if "instructions" in costs:
        lines.append("Instructions are counted on an emulated board; they are not latency.")
    return "\n".join(f"  {line}" for text in lines for line in text.splitlines()) + "\n"


def picture(found: Mapping[str, Any], floor: float, out: Path, title: str) -> None:
    """Accuracy against the cost that decides first."""
    cost = found["costs"][0]
    points = [
        {
            "name": row["name"],
            "cost": row[cost],
            "metric": row["metric"],
            **{key: row[key] for key in ("chosen", "on_front", "passes")},
        }
        for row in found["tried"]
        if row["metric"] is not None
    ]
    pictures.pareto(
        points,
        out,
        title=title,
        cost_label=choice.WORDS[cost],
        metric_label=found["metric"],
        floor=floor,
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
