"""The programs that the build graph runs: `python -m toolchain.steps.<verb>`."""
