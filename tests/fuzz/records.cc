// The JSON records between stages. Input: a record; its shape and header say which reader takes it.
#include "fuzz/fuzz.h"
#include "records/comparison.h"
#include "records/evaluation.h"
#include "records/made.h"
#include "records/measurements.h"
#include "records/multiple_choice.h"
#include "records/plan.h"

using namespace nibble;

namespace {

/// A record that was read is written as a text that is read as the same record.
template <typename Record>
Record comes_back(const Record& record, Record (*read)(const io::Json&, const std::string&)) {
  const std::string text = io::dump_json(records::to_json(record));
  const Record again = read(io::parse_json(text, "again", io::DuplicateKeys::refuse), "again");
  NIBBLE_CHECK(io::dump_json(records::to_json(again)) == text);
  return again;
}

void read_inventory(const records::Inventory& inventory) {
  NIBBLE_CHECK(inventory.bytes_all4() >= 0 && inventory.bytes_all8() >= 0 && inventory.bytes_all16() >= 0);
}

void read(std::string_view text) {
  const io::Json json = io::parse_json(text, "record", io::DuplicateKeys::refuse);
  if (json.is_array()) {
    comes_back(records::comparison_from_json(json, "record"), records::comparison_from_json);
    return;
  }
  const std::string kind = io::Fields(json, "record").string("nibble", "");
  if (kind == "inventory") {
    read_inventory(comes_back(records::inventory_from_json(json, "record"), records::inventory_from_json));
  } else if (kind == "plan") {
    comes_back(records::plan_from_json(json, "record"), records::plan_from_json).kept();
  } else if (kind == "evaluation") {
    records::Evaluation evaluation =
        comes_back(records::evaluation_from_json(json, "record"), records::evaluation_from_json);
    records::summarize(evaluation);
  } else if (kind == "multiple_choice") {
    records::MultipleChoice result =
        comes_back(records::multiple_choice_from_json(json, "record"), records::multiple_choice_from_json);
    records::summarize(result);
  } else if (json.contains("sha256")) {
    comes_back(records::made_from_json(json, "record"), records::made_from_json);
  } else {
    read_inventory(
        comes_back(records::measurements_from_json(json, "record"), records::measurements_from_json)
            .inventory);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::accepts([&] { read(fuzz::text_of(data, size)); });
  return 0;
}
