"""Fixtures of the on-target checks.

The build's judge step gives figures that were measured before; a person gives bundle and device:

    pytest device_tests --bundle build/digits/int8/xnnpack/arm64/bundle.tar --device qemu:cortex-a72

Then the bundle is measured first, with the evaluation data that its build folder holds.
"""

import json
from pathlib import Path

import pytest

from toolchain import devices, errors, schema
from toolchain.layout import Layout


def pytest_addoption(parser):
    group = parser.getgroup("slipway")
    group.addoption("--bundle", type=Path, help="a bundle.tar in a build folder")
    group.addoption("--device", help="qemu:CPU, local, or a name in the devices file")
    group.addoption("--devices", type=Path, default=Path("devices.toml"), help="the devices file")
    group.addoption("--checks", type=Path, help="limits as JSON (default: those of the recipe)")
    group.addoption("--figures", type=Path, help="figures as JSON, measured before")


def pytest_configure(config):
    if config.getoption("--figures") is None and config.getoption("--bundle") is None:
        raise pytest.UsageError(
            "nothing to check; give --bundle build/.../bundle.tar and --device qemu:cortex-a72"
        )


def pytest_sessionfinish(session, exitstatus):
    """A check that could not be decided is no pass."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if exitstatus == 0 and reporter is not None and reporter.stats.get("xfailed"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def bundle(request) -> Path:
    return request.config.getoption("--bundle").absolute()


@pytest.fixture(scope="session")
def device(request):
    """The unit that is measured."""
    name = request.config.getoption("--device")
    if name is None:
        pytest.exit("--bundle needs --device, such as qemu:cortex-a72", returncode=2)
    try:
        return devices.resolve(name, request.config.getoption("--devices"))
    except errors.SlipwayError as error:
        pytest.exit(f"slipway: {error}", returncode=error.exit_status)


@pytest.fixture(scope="session")
def checks(request) -> schema.Checks:
    if path := request.config.getoption("--checks"):
        return schema.decode_json(schema.Checks, path)
    try:
        at = Layout.of_bundle(request.getfixturevalue("bundle"))
    except errors.SlipwayError as error:
        pytest.exit(f"slipway: {error}", returncode=error.exit_status)
    return schema.decode_json(schema.Checks, at.on_target / "spec/checks.json")


@pytest.fixture(scope="session")
def figures(request, tmp_path_factory) -> dict:
    """What `toolchain.stats.figures` makes of the measurement."""
    if given := request.config.getoption("--figures"):
        return json.loads(given.read_bytes())
    bundle, device = request.getfixturevalue("bundle"), request.getfixturevalue("device")
    try:
        return _measured(bundle, device, tmp_path_factory.mktemp("measured"))
    except errors.SlipwayError as error:
        pytest.exit(f"slipway: {error}", returncode=error.exit_status)


def _measured(bundle: Path, device: schema.Device, folder: Path) -> dict:
    from toolchain.bundle import Bundle
    from toolchain.steps import judge, measure, race

    at = Layout.of_bundle(bundle)
    runtime = at.runtime(Bundle.open(bundle).manifest["runtime"]["name"]) / "runtime.json"
    (folder / "device.json").write_text(device.canonical())
    measure.run(
        bundle=bundle,
        runtime=runtime,
        data=at.recipe / "evaluation.safetensors",
        device=folder / "device.json",
        settings=at.on_target / "spec/measure.json",
        out=folder / "samples.json",
        outputs=folder / "outputs.safetensors",
    )
    measured = json.loads((folder / "samples.json").read_bytes())
    if measured["status"] == "infra-error":
        raise errors.InfraError(measured["reason"])
    if measured["status"] == "failed":
        raise errors.CheckFailed(measured["reason"])
    raced = None
    if not device.emulated:
        race.run(
            bundle=[bundle],
            runtime=[runtime],
            samples=[folder / "samples.json"],
            data=at.recipe / "evaluation.safetensors",
            device=folder / "device.json",
            settings=[at.on_target / "spec/measure.json"],
            out=folder / "race.json",
        )
        raced = json.loads((folder / "race.json").read_bytes())
        if raced["status"] != "measured":
            raise errors.InfraError(raced["reason"])
    recipe_data = schema.decode_json(schema.Data, at.recipe / "spec/data.json")
    return judge.figures_of(
        measured,
        folder / "outputs.safetensors",
        at.recipe / "evaluation.safetensors",
        at.recipe / "reference.safetensors",
        at.program / "host.safetensors",
        recipe_data.metric,
        Path(at.folder_note.read_text()),
        raced,
    )
