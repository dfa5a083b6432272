#include "text/jinja/filters.h"

namespace nibble::text::jinja {

const Filter* find_filter(std::string_view name) {
  if (const Filter* filter = find_text_filter(name)) return filter;
  if (const Filter* filter = find_sequence_filter(name)) return filter;
  return find_selection_filter(name);
}

}  // namespace nibble::text::jinja
