// The thread pool that the runtime's kernels and delegates share.
#pragma once

// Give the pool `wanted` threads (0: leave the runtime's choice). To be called before a program is
// loaded: delegates keep the pool that they find then. Throws Failure(Status::load).
void use_threads(unsigned wanted);

unsigned threads_in_use();
