// What the ExecuTorch runtime said of an error, so that our last line can say it too.
#pragma once

#include <string>

// Let the runtime's errors pass through here to stderr; what else it says is dropped.
void watch_runtime_log();

// "OperatorMissing: Missing operator: [2] aten::topk.values": an error's name, and the messages
// that were logged since the last call.
std::string explained(const char* error_name);

// The last message, for a signal handler: a C string that always exists.
const char* last_runtime_message();
