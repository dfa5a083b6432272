// Factoring H for rounding (kernels/rounding.h): H = U D U', U unit upper triangular.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "tensor/tensor.h"

namespace nibble::kernels {

/// H as it is used: the gram with another diagonal. The gram must outlive it.
struct DampedGram {
  ConstMatrix gram;             // (in, in), or its diagonal alone: then H has no more
  std::vector<float> diagonal;  // (in)
};

/// Factors the symmetric matrix `a` (n, n, row-major, of which the lower triangle is read) in fp64 in place:
/// row k becomes U_0k .. U_(k-1)k, D_k. False when some D_k is not above 1e-6 of reference[k]: not positive
/// definite, as far as fp32 can tell.
bool factor_small(std::span<double> a, int64_t n, const float* reference);

/// Factors H into `lower` (in, in), whose row k becomes U_0k .. U_(k-1)k (the rest of the row is undefined),
/// and d (in). Diagonal blocks in fp64, the rest in fp32. False as above. Uses nibble's threads.
bool factor_gram(const DampedGram& h, Matrix& lower, std::vector<float>& d);

/// Calls attempt(H) with a damping that is raised tenfold while attempt returns false, at last with the
/// diagonal of the gram alone; returns the H for which it succeeded, whose gram may be one made of zeros that
/// `zeros` owns.
DampedGram damp_until(ConstMatrix gram, double damping, Matrix& zeros,
                      const std::function<bool(const DampedGram&)>& attempt);

}  // namespace nibble::kernels
