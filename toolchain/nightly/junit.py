"""The results of a run as JUnit XML: what every CI server shows.

testsuite   recipe × target     properties: the run, and where each program was measured
testcase    program             failure: a check failed, or it is worse than it was before
                                error: the device, the network or a tool broke
                                skipped: it could not be decided
"""

from __future__ import annotations

import datetime
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

from toolchain.atomic import write_bytes

Row = Mapping[str, Any]
_TAGS = {
    "fail": "failure",
    "regression": "failure",
    "infra-error": "error",
    "inconclusive": "skipped",
}
# What XML 1.0 has no way to write.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(
    rows: Mapping[str, Row], facts: Mapping[str, str], began: datetime.datetime, out: Path
) -> None:
    """rows: by key, with their verdicts. facts: of the run. began: its time, with a zone."""
    groups: dict[tuple[str, str], dict[str, Row]] = {}
    for key, row in rows.items():
        groups.setdefault((row["recipe"], row["target"]), {})[key] = row
    root = Xml.Element("testsuites")
    for number, ((recipe, target), own) in enumerate(groups.items()):
        name = f"{recipe} {target}"
        suite = Xml.SubElement(root, "testsuite", _counts(list(own.values())))
        for attribute, value in {
            "id": str(number),
            "name": name,
            "package": recipe,
            "timestamp": began.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S"),
            "hostname": socket.gethostname() or "localhost",
        }.items():
            suite.set(attribute, value)
        _properties(suite, facts, own)
        for key, row in own.items():
            _case(suite, name, key, row)
        Xml.SubElement(suite, "system-out").text = _clean("\n".join(_told(own)))
        Xml.SubElement(suite, "system-err")
    Xml.indent(root)
    write_bytes(out, Xml.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def _counts(rows: Sequence[Row]) -> dict[str, str]:
    tags = [_TAGS.get(row["verdict"]) for row in rows]
    return {
        "tests": str(len(rows)),
        "failures": str(tags.count("failure")),
        "errors": str(tags.count("error")),
        "skipped": str(tags.count("skipped")),
        "time": _seconds(sum(row["seconds"] or 0 for row in rows)),
    }


def _properties(suite: Xml.Element, facts: Mapping[str, str], rows: Mapping[str, Row]) -> None:
    found = dict(facts)
    for key, row in rows.items():
        found[f"{key}: unit"] = row["unit"] or "none"
        if row["instructions_per_inference"]:
            found[f"{key}: instructions per inference"] = row["instructions_per_inference"]
        if row["latency_ms"]:
            found[f"{key}: p50 ms"] = row["latency_ms"]["p50"]
        if row["accuracy"] is not None:
            found[f"{key}: {row['metric']}"] = row["accuracy"]
        found[f"{key}: program bytes"] = row["model_bytes"]
    properties = Xml.SubElement(suite, "properties")
    for name, value in found.items():
        one = {"name": _clean(name), "value": _clean(str(value))}
        Xml.SubElement(properties, "property", one)


def _case(suite: Xml.Element, name: str, key: str, row: Row) -> None:
    case = Xml.SubElement(
        suite,
        "testcase",
        {"name": _clean(key), "classname": _clean(name), "time": _seconds(row["seconds"] or 0)},
    )
    if tag := _TAGS.get(row["verdict"]):
        given = [_clean(str(reason)) for reason in row["reasons"] if str(reason).strip()]
        reasons = given or ["no reason is given"]
        told = {"message": f"{row['verdict']}: {reasons[0].strip().splitlines()[0]}"}
        if tag != "skipped":
            told["type"] = row["verdict"]
        Xml.SubElement(case, tag, told).text = "\n".join(reasons)


def _told(rows: Mapping[str, Row]) -> list[str]:
    """Each attempt, and each finding."""
    lines = []
    for key, row in rows.items():
        lines += [
            f"{key}: attempt {one['attempt']} on {one['unit']}, {one['seconds']:.1f} s: "
            f"{one['verdict']}{': ' if one['reason'] else ''}{one['reason']}"
            for one in row["attempts"]
        ]
        lines += [f"{key}: {finding}" for finding in row["findings"]]
    return lines


def _seconds(value: float) -> str:
    return f"{value:.3f}"


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("�", text)
