// What a model takes in bytes, from its Spec alone.
#pragma once

#include <string>

#include "model/spec.h"
#include "records/inventory.h"

namespace nibble::model {

/// Tensor data of a linear as NF4 with double quantization; `offset` is the mean of its absmax values, which
/// the quant_state writes out in decimal.
int64_t nf4_bytes(int64_t out, int64_t in, DType dtype, float offset);

/// Makes a linear's sizes those of a source of this dtype. bytes4 is exact but for the digits of one number
/// in the quant_state, which only the weight tells (a few bytes).
void set_dtype(records::LinearRecord& linear, DType dtype);

/// The linears with their sizes where every tensor is stored as `dtype`. `model` is the name that the user
/// gave. The spec is one of describe() (family.h), which bounds its sizes.
records::Inventory inventory_of(const Spec& spec, DType dtype, const std::string& model);

}  // namespace nibble::model
