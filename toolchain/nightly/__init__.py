"""The nightly: everything built, then measured on all units of all targets at once.

    options ─ plan ─┬─ journal    what is finished already, in the history
                    └─ scheduler ─ attempt ─ steps (measure, race, compare, judge) on one unit
    results ─ gate ─ summary, junit, report

Use: `./scripts/nightly`, see `options.HELP`.
"""
