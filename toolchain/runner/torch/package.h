// A package of AOTInductor: a zip archive (`.pt2`) whose files are stored, not compressed.
//
//   NAME/data/aotinductor/model/*.so               the program, with its weights
//   NAME/data/aotinductor/model/*_metadata.json    what it says of itself
//   …
#pragma once

#include <cstddef>
#include <string>
#include <vector>

struct Member {
  std::string name;
  const std::byte* data;
  std::size_t size;
};

// The members of the archive `size` bytes long at `data`; each is what its checksum says.
// Throws Failure(Status::load) that starts with `path`.
std::vector<Member> members_of(const std::string& path, const std::byte* data, std::size_t size);
