#include "plan/errors.h"

namespace nibble::plan {
namespace {

double at_most_largest(double error) {
  return error <= kLargestError ? error : kLargestError;
}

}  // namespace

SeenError weight_error(const records::LinearErrors& errors) {
  return {at_most_largest(errors.weight), "weight"};
}

SeenError activation_error(const records::LinearErrors& errors) {
  SeenError worst;
  for (const auto modality : records::kModalities) {
    const auto& activation = errors.activation[static_cast<size_t>(modality)];
    const double error = at_most_largest(activation.relative());
    if (activation.rows > 0 && (worst.where.empty() || error > worst.error))
      worst = {error, std::string(records::modality_name(modality))};
  }
  return worst;
}

SeenError expected_error(const records::LinearErrors& errors) {
  const SeenError seen = activation_error(errors);
  return seen.where.empty() ? weight_error(errors) : seen;
}

}  // namespace nibble::plan
