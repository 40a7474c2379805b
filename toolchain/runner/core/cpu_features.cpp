#include "cpu_features.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>

#include "failure.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace {

// Registers that the kernel has to save for a feature: bits of XCR0.
constexpr std::uint64_t kNone = 0, kYmm = 0x6, kZmm = 0xe6, kTiles = 0x60000;

enum Register : std::uint8_t { EAX, EBX, ECX, EDX };

struct Feature {
  std::string_view name;
  std::uint32_t leaf, subleaf;
  Register where;
  std::uint8_t bit;
  std::uint64_t saved;
};

// Intel's Software Developer's Manual, volume 2, CPUID; leaf 0x80000001: AMD's, volume 3, E.4.
constexpr auto kFeatures = std::to_array<Feature>({
    {"fpu", 1, 0, EDX, 0, kNone},
    {"cx8", 1, 0, EDX, 8, kNone},
    {"cmov", 1, 0, EDX, 15, kNone},
    {"mmx", 1, 0, EDX, 23, kNone},
    {"fxsr", 1, 0, EDX, 24, kNone},
    {"sse", 1, 0, EDX, 25, kNone},
    {"sse2", 1, 0, EDX, 26, kNone},
    {"pni", 1, 0, ECX, 0, kNone},
    {"pclmulqdq", 1, 0, ECX, 1, kNone},
    {"ssse3", 1, 0, ECX, 9, kNone},
    {"fma", 1, 0, ECX, 12, kYmm},
    {"cx16", 1, 0, ECX, 13, kNone},
    {"sse4_1", 1, 0, ECX, 19, kNone},
    {"sse4_2", 1, 0, ECX, 20, kNone},
    {"movbe", 1, 0, ECX, 22, kNone},
    {"popcnt", 1, 0, ECX, 23, kNone},
    {"aes", 1, 0, ECX, 25, kNone},
    {"xsave", 1, 0, ECX, 27, kNone},  // OSXSAVE: the kernel uses it
    {"avx", 1, 0, ECX, 28, kYmm},
    {"f16c", 1, 0, ECX, 29, kYmm},
    {"bmi1", 7, 0, EBX, 3, kNone},
    {"avx2", 7, 0, EBX, 5, kYmm},
    {"bmi2", 7, 0, EBX, 8, kNone},
    {"avx512f", 7, 0, EBX, 16, kZmm},
    {"avx512dq", 7, 0, EBX, 17, kZmm},
    {"avx512ifma", 7, 0, EBX, 21, kZmm},
    {"avx512cd", 7, 0, EBX, 28, kZmm},
    {"sha_ni", 7, 0, EBX, 29, kNone},
    {"avx512bw", 7, 0, EBX, 30, kZmm},
    {"avx512vl", 7, 0, EBX, 31, kZmm},
    {"avx512vbmi", 7, 0, ECX, 1, kZmm},
    {"avx512_vbmi2", 7, 0, ECX, 6, kZmm},
    {"gfni", 7, 0, ECX, 8, kNone},
    {"vaes", 7, 0, ECX, 9, kYmm},
    {"vpclmulqdq", 7, 0, ECX, 10, kYmm},
    {"avx512_vnni", 7, 0, ECX, 11, kZmm},
    {"avx512_bitalg", 7, 0, ECX, 12, kZmm},
    {"avx512_vpopcntdq", 7, 0, ECX, 14, kZmm},
    {"amx_bf16", 7, 0, EDX, 22, kTiles},
    {"avx512_fp16", 7, 0, EDX, 23, kZmm},
    {"amx_tile", 7, 0, EDX, 24, kTiles},
    {"amx_int8", 7, 0, EDX, 25, kTiles},
    {"avx_vnni", 7, 1, EAX, 4, kYmm},
    {"avx512_bf16", 7, 1, EAX, 5, kZmm},
    {"lahf_lm", 0x80000001, 0, ECX, 0, kNone},
    {"abm", 0x80000001, 0, ECX, 5, kNone},
    {"syscall", 0x80000001, 0, EDX, 11, kNone},
});

#if defined(__x86_64__)

// What the kernel saves for each thread; 0 if it does not say.
std::uint64_t saved_by_kernel() {
  std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr std::uint32_t kOsxsave = 1U << 27;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & kOsxsave) == 0) return 0;
  asm volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
  return std::uint64_t{edx} << 32 | eax;
}

bool has(const Feature& feature) {
  std::array<std::uint32_t, 4> registers{};
  auto& [eax, ebx, ecx, edx] = registers;
  // A subleaf beyond the last one may hold another's bits.
  if (feature.subleaf > 0) {
    if (__get_cpuid_count(feature.leaf, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
    if (eax < feature.subleaf) return false;
  }
  if (__get_cpuid_count(feature.leaf, feature.subleaf, &eax, &ebx, &ecx, &edx) == 0) return false;
  if ((registers[feature.where] >> feature.bit & 1) == 0) return false;
  return (saved_by_kernel() & feature.saved) == feature.saved;
}

#else

bool has(const Feature&) { return false; }  // the names are those of x86

#endif

}  // namespace

void require_features(const std::vector<std::string>& needs) {
  std::string lacking;
  for (const auto& name : needs) {
    const auto* feature = std::find_if(kFeatures.begin(), kFeatures.end(),
                                       [&](const Feature& known) { return known.name == name; });
    if (feature == kFeatures.end()) {
      throw Failure(Status::usage, "--needs: unknown CPU feature '" + name + "'");
    }
    if (!has(*feature)) lacking += (lacking.empty() ? "" : ", ") + name;
  }
  if (!lacking.empty()) {
    throw Failure(Status::load,
                  "this CPU lacks " + lacking + ", which the program was compiled for");
  }
}
