// Time that passes.
#pragma once

#include <chrono>

namespace nibble {

/// Seconds since a moment of the steady clock.
inline double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace nibble
