// What the charts of charts.h are put together with.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "records/inventory.h"
#include "records/measurements.h"
#include "records/plan.h"
#include "report/log_axis.h"

namespace nibble::report {

/// One of the specifications under page/charts: "points", "map", "intervals".
io::Json chart_spec(std::string_view name);
/// Sets the value of a signal, or the values of a data set, that the specification has (CHECK).
void set_signal(io::Json& spec, std::string_view name, io::Json value);
void set_data(io::Json& spec, std::string_view name, io::Json values);
/// Domain, ticks and title of the axis "x" or "y".
void set_axis(io::Json& spec, const std::string& axis, const LogAxis& scale, const std::string& title);

/// "vision", "projector", "text" as a title begins: "Vision tower".
std::string part_title(records::Part part);
/// "attention out".
std::string role_title(records::Role role);
/// "inputs with pictures", "plain texts": which inputs a KL is a mean over.
std::string inputs_title(records::Modality modality);

/// The decisions by name of the linear; empty for no plan.
std::map<std::string_view, const records::Decision*> decisions_by_name(const records::Plan* plan);

/// Where linears stand on an axis of depth: projector linears behind the last block of the vision tower.
struct Depths {
  std::vector<int64_t> of;       // each linear of the inventory
  int64_t vision = 0, text = 0;  // blocks
  int64_t projector = 0;         // linears
};
Depths depths_of(const records::Inventory& inventory);

}  // namespace nibble::report
