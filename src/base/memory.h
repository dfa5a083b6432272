#pragma once

#include <cstddef>

namespace nibble {

/// Gives memory that was freed, but is still held for the next allocation, back to the system, where the C
/// library can. For the end of a layer: its buffers are as large as its weights. Thread-safe.
void give_back_freed_memory();

/// Asks the system to back a large buffer with large pages, which saves most of the time of touching it first. Small
/// buffers and other systems are let pass.
void prefer_large_pages(void* buffer, size_t size);

}  // namespace nibble
