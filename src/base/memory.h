#pragma once

namespace nibble {

/// Gives memory that was freed, but is still held for the next allocation, back to the system, where the C
/// library can. For the end of a layer: its buffers are as large as its weights. Thread-safe.
void give_back_freed_memory();

}  // namespace nibble
