// A mapped file that the system can no longer give: one line and exit code 2 instead of a killed program.
#pragma once

namespace nibble::app {

/// From now on, a page of a mapped file that is no longer there (the file shrank, the disk or the network
/// failed: SIGBUS) ends the program like an error does: a line on standard error that names the file, exit
/// code 2. What was being written stays under its ".partial" name. Other bus errors kill as before.
void catch_bus_errors();

}  // namespace nibble::app
