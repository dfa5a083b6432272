// Text and data made safe to stand in an HTML page.
#pragma once

#include <string>
#include <string_view>

#include "io/json.h"

namespace nibble::report {

/// Text between tags or inside a quoted attribute: & < > " ' are escaped; control characters but the line
/// break, and bytes that are no UTF-8, are shown as one_line shows them.
std::string html_text(std::string_view text);

/// JSON on one line for a <script> element: < > & are written as escapes, so that no text inside can end the
/// element or begin a comment. Bytes that are no UTF-8 become U+FFFD.
std::string script_json(const io::Json& json);

/// RFC 4648, with padding.
std::string base64(std::string_view bytes);

/// "data:image/png;base64,...", the type told from the first bytes: PNG, JPEG or WebP; "" for other files.
std::string picture_uri(std::string_view bytes);

}  // namespace nibble::report
