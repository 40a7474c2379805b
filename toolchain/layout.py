"""Where everything stands below the build folder: each folder is named by what its files depend on.

<recipe>/spec/{model,data,…}.json                                 parts of the recipe
<recipe>/{model.pt2,calibration,evaluation,reference.safetensors} float model, data, its outputs
<recipe>/{training.pt2,training.safetensors}                      for training, if asked for
<recipe>/<variant>/spec/variant.json
<recipe>/<variant>/<backend>/{quantized.pt2,notes.json}           what the backend's quantizer made
<recipe>/<variant>/<backend>/{program.*,lower.json,host.safetensors,quantize.json}
                          below the target if they rely on its CPUs, or its costs chose them
<recipe>/<variant>/<backend>/sensitivity.{json,svg}               if asked for
<recipe>/<variant>/<backend>/<target>/{bundle.tar,spec/{measure,checks}.json}
<recipe>/<variant>/<backend>/<target>/{choice.json,search.json,search.svg}        of a search
<recipe>/<variant>/<backend>/<target>/<device>/{samples,verdict}.json, outputs.safetensors
<recipe>/race/<target>/<device>/{race,comparison}.json            programs against each other
runtime/<target>/target.json
runtime/<target>/<runtime>/{sdk.whl,runner,runtime.json,lib/*.so} what runs programs there
tools/{python,<target>}.json                                      versions of the tools
devices/<device>.json
nightly/<run>/{attempt-<n>/,attempts.jsonl,summary.json,junit.xml,report.html}    of scripts/nightly
summary.json
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from toolchain.errors import UserError


def device_folder(name: str) -> str:
    """The name of a device as a folder: `qemu:cortex-a72` is `qemu-cortex-a72`."""
    return name.replace(":", "-")


@dataclass(frozen=True)
class Layout:
    """Folders of one job below `build`.

    searched: the quantized program depends on the target: a search chose it by its cost there.
    per_target: the lowered program does: it relies on the CPUs there.
    """

    build: Path
    recipe_name: str
    variant_name: str
    backend: str
    target: str
    searched: bool = False
    per_target: bool = False

    @property
    def recipe(self) -> Path:
        return self.build / self.recipe_name

    @property
    def folder_note(self) -> Path:
        """Where the recipe stands, for checks that are run by hand."""
        return self.recipe / "spec/folder.txt"

    @property
    def variant(self) -> Path:
        return self.recipe / self.variant_name

    @property
    def quantized(self) -> Path:
        return self.on_target if self.searched else self.variant / self.backend

    @property
    def program(self) -> Path:
        return self.on_target if self.searched or self.per_target else self.variant / self.backend

    @property
    def on_target(self) -> Path:
        return self.variant / self.backend / self.target

    @property
    def bundle(self) -> Path:
        return self.on_target / "bundle.tar"

    @property
    def target_spec(self) -> Path:
        return self.build / "runtime" / self.target / "target.json"

    def runtime(self, name: str) -> Path:
        return self.build / "runtime" / self.target / name

    def device(self, name: str) -> Path:
        return self.on_target / device_folder(name)

    def race(self, device: str) -> Path:
        """Of all programs of the recipe, on a device."""
        return self.recipe / "race" / self.target / device_folder(device)

    @classmethod
    def of_bundle(cls, bundle: Path) -> Layout:
        """The layout that a bundle in a build folder belongs to."""
        folder = bundle.absolute().parent
        above = list(folder.parents)
        if len(above) < 4 or not (above[2] / "evaluation.safetensors").is_file():
            raise UserError(
                "does not stand in a build folder, beside its evaluation data",
                where=str(bundle),
                hint="such as build/digits/int8/xnnpack/arm64/bundle.tar; scons bundles makes it",
            )
        recipe, variant, backend, target = folder.parts[-4:]
        searched = (folder / "choice.json").is_file()
        per_target = (folder / "lower.json").is_file()
        return cls(above[3], recipe, variant, backend, target, searched, per_target)
