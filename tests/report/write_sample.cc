// Writes the records of sample_report.h into a folder, for tests that show them in a browser.
//   sample_report DIR BLOCKS
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "report/sample_report.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("usage: sample_report DIR BLOCKS\n", stderr);
    return 2;
  }
  const std::filesystem::path folder = argv[1];
  const auto records = nibble::testing::report_records(std::atoi(argv[2]));
  const auto write = [&](const char* name, const nibble::io::Json& json) {
    nibble::io::write_file(folder / name, nibble::io::dump_json(json) + "\n");
  };
  write("measurements.json", to_json(*records.measurements));
  write("plan.json", to_json(*records.plan));
  write("compare.json", nibble::records::to_json(records.models));
}
