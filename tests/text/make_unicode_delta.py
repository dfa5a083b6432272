#!/usr/bin/env python3
"""Writes src/text/unicode_delta.inc: the code points that the reference's regular expressions (Oniguruma, Unicode 16.0)
classify otherwise than Unicode 14.0 does, with their general category and script.

  python tests/text/make_unicode_delta.py > src/text/unicode_delta.inc

Needs tokenizers 0.22.2 and a Python whose unicodedata is 14.0.0 (3.11).
"""
import unicodedata

import tokenizers
from tokenizers import Regex, pre_tokenizers

assert unicodedata.unidata_version == "14.0.0" and tokenizers.__version__ == "0.22.2"

CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co Cn".split()
# Scripts of Unicode 14 or 15 that gained code points since.
SCRIPTS = "Ahom Arab Bali Cyrl Deva Egyp Hani Hira Kana Kawi Khoj Kits Knda Laoo Latn Mymr Nagm Zyyy".split()

POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
TEXT = "".join(map(chr, POINTS))


def members(property_name):
    split = pre_tokenizers.Split(Regex(r"\p{%s}" % property_name), "removed", invert=True)
    for _, (begin, end) in split.pre_tokenize_str(TEXT):
        yield from POINTS[begin:end]


category = {c: name for name in CATEGORIES for c in members(name)}
delta = [c for c in POINTS if category[c] != unicodedata.category(chr(c))]
script = dict.fromkeys(delta, "")
for name in SCRIPTS:
    script.update((c, name) for c in members(name) if c in script)

rows = []
for c in delta:
    kind = (category[c], script[c])
    if rows and rows[-1][1] == c - 1 and rows[-1][2] == kind:
        rows[-1][1] = c
    else:
        rows.append([c, c, kind])
print("// Made by tests/text/make_unicode_delta.py: {first, last, general category, script (\"\" for one newer than 15.0)}.")
for first, last, (cat, name) in rows:
    print(f'{{0x{first:04X}, 0x{last:04X}, "{cat}", "{name}"}},')
