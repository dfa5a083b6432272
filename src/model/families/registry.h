// The families, one line each.
#pragma once

#include "model/family.h"

namespace nibble::model {

extern const Family kLlama;
extern const Family kLlava;
extern const Family kMllama;
extern const Family kPhi3;
extern const Family kQwen2Vl;

}  // namespace nibble::model
