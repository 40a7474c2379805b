// The files of a program: a tar archive (ustar) of `model.xml` and `model.bin`.
#pragma once

#include <cstddef>
#include <span>
#include <string>

struct Ir {
  std::string_view xml;
  std::span<std::byte> weights;  // may be empty
};

// Where they are in the archive's bytes. Throws Failure(Status::load) that starts with `path`.
Ir ir_in(const std::string& path, std::span<std::byte> archive);
