// The command line.
#pragma once

namespace nibble::app {

/// Runs one command. Results go to stdout, progress and errors to stderr.
/// Returns 0, or 2 after one line that says what is wrong and what to do.
int run(int argc, char** argv);

}  // namespace nibble::app
