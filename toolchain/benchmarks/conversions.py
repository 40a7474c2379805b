"""The peers' models of a recipe: made once, kept until something changes that they come from.

<out>/<recipe>/<peer>/<form>/{model.*,conversion.json,key.json}
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from toolchain import bootstrap
from toolchain.atomic import write_json
from toolchain.benchmarks import environment, peers
from toolchain.errors import InfraError

SECONDS = 1800.0  # for one conversion
KEY = "key.json"
CODE = Path(__file__).parent


@dataclass(frozen=True)
class Material:
    """What models are made of: torch's float program, and samples of its inputs."""

    program: Path
    calibration: Path

    @property
    def kind(self) -> str:
        """What the network's weights are in, without torch: the archive's graph is text."""
        with zipfile.ZipFile(self.program) as archive:
            texts = [archive.read(n) for n in archive.namelist() if n.endswith(".json")]
        convolutions = any(b"torch.ops.aten.conv" in text for text in texts)
        return peers.CONVOLUTIONS if convolutions else peers.LINEARS


@dataclass(frozen=True)
class Converted:
    """A peer's model. absent: why there is none; empty if there is."""

    peer: str
    form: str
    model: Path
    absent: str = ""

    @property
    def name(self) -> str:
        return f"{self.peer} {self.form}"


def all_of(
    material: Material, out: Path, say: Callable[[str], None], only: Iterable[str] = ()
) -> list[Converted]:
    """A model of each peer in each form that is worth a trial; only: these forms alone."""
    wanted = set(only)
    return [
        _kept(material, peer, form, out, say)
        for peer in peers.names()
        for form, kinds in peers.load(peer).FORMS.items()
        if material.kind in kinds and (not wanted or form in wanted)
    ]


def _kept(
    material: Material, peer: str, form: str, out: Path, say: Callable[[str], None]
) -> Converted:
    folder = out / peer / re.sub(r"\W+", "_", form)
    made = Converted(peer, form, folder / f"model{peers.load(peer).SUFFIX}")
    key = _key(material, peer, form)
    kept = folder / KEY
    if kept.is_file() and made.model.is_file() and json.loads(kept.read_bytes()) == key:
        return made
    shutil.rmtree(folder, ignore_errors=True)
    say(f"converting for {made.name}")
    if why := _convert(material, made):
        return Converted(peer, form, made.model, why)
    write_json(kept, key)
    return made


def _key(material: Material, peer: str, form: str) -> Mapping[str, object]:
    """What a model depends on."""
    code = [CODE / "convert.py", CODE / "peers" / f"{peer}.py"]
    return {
        "form": form,
        "packages": environment.versions(peers.load(peer).PACKAGES),
        "files": [_digest(path) for path in (material.program, material.calibration, *code)],
    }


def _convert(material: Material, made: Converted) -> str:
    """Make the model; why it could not be made, or nothing."""
    command = [
        str(environment.VENV / "bin/python"), "-m", "toolchain.benchmarks.convert",
        f"--peer={made.peer}", f"--form={made.form}", f"--program={material.program}",
        f"--calibration={material.calibration}", f"--out={made.model}",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, cwd=bootstrap.ROOT, capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"its conversion took longer than {SECONDS:g} s"
    except OSError as error:
        raise InfraError(f"{environment.VENV.name} does not work: {error}") from None
    if done.returncode == 0:
        return ""
    return last_line(done.stderr) or f"its conversion ended with status {done.returncode}"


def last_line(text: str) -> str:
    """What a Python program said last: of an exception its type and message."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else ""


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
