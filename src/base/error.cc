#include "base/error.h"

namespace nibble {

void check_failed(const char* file, int line, const char* condition, const std::string& text) {
  throw InternalError(fmt::format("internal error at {}:{}: {} does not hold{}{}; please report it", file,
                                  line, condition, text.empty() ? "" : ": ", text));
}

}  // namespace nibble
