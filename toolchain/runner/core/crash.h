// A crash of the runtime (a corrupt program, an instruction that the CPU lacks) ends with one clear
// line and an exit status that says when it happened, not with a bare signal.
#pragma once

#include "failure.h"

void watch_crashes();

// What is being done from now on. doing: a string literal, such as "loading the program".
void now(Status if_it_crashes, const char* doing);

// What to tidy after a crash; called in the signal handler. null: nothing.
void on_crash(void (*tidy)());
