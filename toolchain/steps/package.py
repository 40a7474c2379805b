"""Pack runner, libraries, program and self-test into one bundle for a target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolchain import __version__, backends, bundle, elf, isa, machine_code, schemes
from toolchain.atomic import read_json, write_bytes
from toolchain.errors import UserError
from toolchain.samples import Array, load, ordered, specs_of, to_bin
from toolchain.schema import Target, decode_json
from toolchain.steps.main import say, step

# A self-test shows that the bundle works, it does not judge it: a few samples, and few bytes.
SELF_TEST_SAMPLES = 4
SELF_TEST_BYTES = 256 * 1024


def run(
    *,
    recipe: str,
    variant: str,
    backend: str,
    target_name: str,
    target: Path,
    program: Path,
    quantized: Path,
    lowered: Path,
    samples: Path,
    expected: Path,
    runner: Path,
    runtime: Path,
    tools: list[Path],
    out: Path,
) -> None:
    """Write the bundle of one program for one target to `out`.

    quantized, lowered: reports of which operators were quantized, and which were delegated.
    samples, expected: the evaluation inputs, and what the program made of them on the host.
    runner: with `lib` beside it; runtime: what is in there. tools: files that tell versions.
    """
    lowering, report = read_json(lowered), read_json(quantized)
    kind, lowerer = decode_json(Target, target), backends.load(backend)
    libraries = lowerer.optional_libraries(lowering)
    binaries = _binaries(runner, libraries)
    for name, path in binaries.items():
        if (found := elf.machine(path)) != kind.arch:
            raise UserError(f"'{name}' is for {found}, the target is {kind.arch}", where=str(path))
    shipped = f"program{lowerer.SUFFIX}"
    needs = isa.features(kind.isa) if lowerer.PER_TARGET else frozenset()
    for name, content in lowerer.machine_code(program):
        machine_code.check(content, needs, f"{program}: {name}")
    apart = read_json(runtime)
    packed = {bundle.RUNNER: runner} if apart["apart"] else binaries
    inputs, outputs = _self_test(load(samples), load(expected))
    files = {name: path.read_bytes() for name, path in packed.items()} | {
        shipped: program.read_bytes(),
        bundle.SELF_TEST_INPUTS: to_bin(inputs, "input."),
        bundle.SELF_TEST_EXPECTED: to_bin(outputs, "output."),
    }
    manifest = {
        "schema": bundle.SCHEMA,
        "recipe": recipe,
        "variant": variant,
        "scheme": report["scheme"],
        "backend": backend,
        "target": target_name,
        "arch": kind.arch,
        "program": shipped,
        "runtime": {
            name: apart[name] for name in ("name", "package", "version", "digest", "bytes", "apart")
        },
        "floor": sorted(isa.features(kind.isa) - isa.LEVELS["x86-64-v1"]),
        "needs": sorted(needs - isa.LEVELS["x86-64-v1"]),
        "environment": lowerer.environment(kind.isa),
        "load_libraries": [f"lib/{name}" for name in libraries],
        "inputs": specs_of(inputs, "input."),
        "outputs": specs_of(outputs, "output."),
        "self_test_samples": len(ordered(inputs, "input.")[0]),
        "abi_floor": elf.floors(binaries.values()),
        "tools": _tools(tools),
        "files": {
            name: {"bytes": len(data), "sha256": bundle.digest(data), "part": _part(name)}
            for name, data in sorted(files.items())
        },
        "bytes": _sizes(files),
        **_delegation(lowering),
        "not_quantized": _not_quantized(report),
    }
    write_bytes(out, bundle.write(files, manifest))
    parts = _sizes(files)
    total = parts.pop("total")
    listed = ", ".join(f"{name} {size / 1e6:.2f}" for name, size in parts.items())
    say(f"{recipe} {variant}: {total / 1e6:.2f} MB: {listed}")


def _binaries(runner: Path, optional: tuple[str, ...]) -> dict[str, Path]:
    """The runner, the libraries that it needs, and those that are loaded for the program."""
    folder = runner.parent / "lib"
    needed = set(elf.closure(runner, folder))
    for name in optional:
        needed |= {name, *elf.closure(folder / name, folder)}
    return {bundle.RUNNER: runner} | {f"lib/{name}": folder / name for name in sorted(needed)}


def _self_test(
    inputs: Mapping[str, Array], outputs: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """The first samples, at least one."""
    given, made = ordered(inputs, "input."), ordered(outputs, "output.")
    if not given or not made:
        raise UserError("there are no samples of inputs and outputs for the self-test")
    sample_bytes = sum(array[0].nbytes for array in given + made)
    count = max(1, min(SELF_TEST_SAMPLES, SELF_TEST_BYTES // max(1, sample_bytes), len(made[0])))
    return (
        {f"input.{k}": array[:count] for k, array in enumerate(given)},
        {f"output.{k}": array[:count] for k, array in enumerate(made)},
    )


def _delegation(lowered: Mapping[str, Any]) -> dict[str, Any]:
    """How much of the program the backend took, and what it left."""
    operators = lowered["operators"]
    left = sum(operators["undelegated"].values())
    total = operators["delegated"] + left
    return {
        "delegates": lowered["delegates"],
        "delegated_share": operators["delegated"] / total if total else 0.0,
        "undelegated": operators["undelegated"],
        "remarks": lowered.get("remarks", []),
    }


def _not_quantized(report: Mapping[str, Any]) -> dict[str, int]:
    """Operators that a quantizing scheme left in float, counted, with the reason."""
    if schemes.load(report["scheme"]).NEEDS in schemes.FLOATS:
        return {}
    left = Counter(f"{row['operator']} ({row['why']})" for row in report["not_quantized"])
    return dict(sorted(left.items()))


def _tools(files: list[Path]) -> dict[str, str]:
    versions: dict[str, str] = {"slipway": __version__}
    for file in files:
        versions |= read_json(file)
    return versions


def _sizes(files: Mapping[str, bytes]) -> dict[str, int]:
    """Bytes by part, and in total; the manifest and the tar's own blocks are not counted."""
    sizes = dict.fromkeys(("runner", "libraries", "program", "self_test"), 0)
    for name, data in files.items():
        sizes[_part(name)] += len(data)
    return sizes | {"total": sum(sizes.values())}


def _part(name: str) -> str:
    folder, slash, _ = name.partition("/")
    if slash:
        return "libraries" if folder == "lib" else folder
    return name.partition(".")[0]


if __name__ == "__main__":
    step(run)
