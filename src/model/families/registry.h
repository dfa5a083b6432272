// The families, one line each.
#pragma once

#include "model/family.h"

namespace nibble::model {

extern const Family kQwen2Vl;

}  // namespace nibble::model
