"""Slipway's programs against other runtimes: same models, same host, same rounds.

    ./scripts/benchmark recipe=mobilenet_v2,minilm

    build ──── bundles of target x86_64, run by their own runner ────────────┐
    model.pt2 ┐                                                              ├─ rounds ─ result.json
    calibration ┴ convert (.venv-benchmarks) ─ a peer's model ─ contender ───┘           table.md

The peers live in `.venv-benchmarks`, an environment of their own. `convert`, `contender` and
`peers` run there, and nothing of them is imported by the product; they import of it only what
needs no package but numpy and safetensors.
"""
