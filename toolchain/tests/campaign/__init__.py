"""Faults on real servers and boards, one after the other, and what has to hold after each.

    python -m toolchain.tests.campaign --x86-64 BUNDLE --arm64 BUNDLE --count 1000 --seed 1

After each fault: the slot of the device has the bundle that it had, or the new one, whole; the
lease can be taken within its time to live; what the client got is an InfraError, or it was done
before the fault; a measurement is an infra-error, or right; and the same thing done again succeeds.
"""
