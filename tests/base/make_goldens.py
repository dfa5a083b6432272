"""Writes goldens/python_repr.txt: the bits of a double in hex and Python's repr of it, one pair a line.

Run from the repository root with any Python 3 (made with 3.11): python3 tests/base/make_goldens.py
"""

import pathlib
import random
import struct

SPECIAL = [
    0.0, -0.0, 1.0, -1.0, 0.1, 0.5, 1e-05, 0.0001, 0.00012, 9.999999999999999e-05, 0.00010000000000000002, 1e-4 / 2,
    123456.0, 1e15, 9999999999999998.0, 1e16, 1.0000000000000002e16, 1e17, 1e22, 1e23, 1e100, 1e-100, 5e-324, 1e-323,
    2.2250738585072014e-308, 2.225073858507201e-308, 1.7976931348623157e308, 9007199254740992.0, 9007199254740994.0,
    4503599627370496.5, 0.05190518498420715, 6.0, 10000.0, 500000.0, 1e-6, 1e-12, 3.141592653589793, 2.0**-1074,
    float("inf"), float("-inf"), float("nan"),
]


def main():
    rng = random.Random(1)
    values = list(SPECIAL)
    values += [struct.unpack("<d", rng.randbytes(8))[0] for _ in range(1000)]  # any bits
    values += [struct.unpack("<f", rng.randbytes(4))[0] for _ in range(500)]  # fp32 values as doubles
    values += [rng.uniform(-1, 1) * 10 ** rng.uniform(-7, 18) for _ in range(1000)]  # both sides of both limits
    values += [float(rng.randrange(10**rng.randrange(1, 18))) for _ in range(500)]  # whole numbers
    lines = [f"{struct.unpack('<Q', struct.pack('<d', v))[0]:016x} {v!r}\n" for v in values]
    out = pathlib.Path(__file__).parent / "goldens" / "python_repr.txt"
    out.write_text("".join(lines))


main()
