"""The history of measurements: each with where it comes from, in SQLite or PostgreSQL.

with History("sqlite:///history.sqlite") as history:
    history.begin(run, {"revision": "4f1c…", "options": "target=arm64"})
    history.record(run, key, row, samples, pool="arm64", unit="pi5", attempt=1)
    print(gate.judge(history, run, key, row, checks))
    history.end(run, "complete")

models       the tables             migrations/  how they came to be; run by themselves
addresses    URLs of databases      engines      connections, and what can go wrong with them
store        History                values       what it gives
gate         is it worse than before?   latency  the test for times;   costs  for exact figures
power        how often the gate is wrong, and how much it sees, on recorded rounds
"""

from toolchain.history.store import History
from toolchain.history.values import Attempt, Judged, Quarantined, Row, Run

__all__ = ["Attempt", "History", "Judged", "Quarantined", "Row", "Run"]
