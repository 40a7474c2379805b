// The thread pool that the runtime's kernels and delegates share.
#pragma once

// Give the pool `wanted` threads (0: leave the runtime's choice) and return how many it has.
// To be called before a program is loaded: delegates keep the pool that they find then.
unsigned use_threads(unsigned wanted);
