"""Goldens of products with 8-bit weights: what bitsandbytes' Linear8bitLt computes on a CPU.

Run once with each pinned version, from the repository root:
    python tests/kernels/make_goldens_int8.py        (bitsandbytes 0.48.2, torch 2.15)
    python tests/kernels/make_goldens_int8.py        (bitsandbytes 0.50.2, torch 2.15)
Both write the same bytes to tests/kernels/goldens/int8.json. Set ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 on machines that
show AMX without letting every program use it.
"""

import json
import pathlib
import sys

import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "quant"))
from make_goldens import DTYPES, VERSION, samples, sha  # noqa: E402
from make_goldens_int8 import linear  # noqa: E402

WEIGHT_SCALE, BIAS_SCALE = 1e-6, 1e-5  # deviations 0.04 and 0.4


def matrix(seed, rows, cols, scale, dtype):
    scale = torch.tensor(scale, dtype=torch.float32).numpy()
    return torch.from_numpy(samples(seed, rows * cols) * scale).reshape(rows, cols).to(dtype)


def run(case):
    """Weight, x and bias are samples of seeds 1, 2 and 3 above the case's own."""
    dtype, seed = DTYPES[case["dtype"]], case["seed"]
    w = matrix(seed + 1, case["out"], case["in"], WEIGHT_SCALE, dtype)
    x = matrix(seed + 2, case["rows"], case["in"], case["x_scale"], dtype)
    for row, col, value in case["planted"]:
        x[row, col] = value
    bias = matrix(seed + 3, 1, case["out"], BIAS_SCALE, dtype)[0] if case["bias"] else None
    layer = linear(w, bias, case["threshold"])
    with torch.no_grad():
        y = layer(x[None])[0]
    assert y.dtype == dtype
    columns = layer.state.idx
    out = dict(case, outlier_columns=[] if columns is None else columns.tolist())
    y = y.float() + 0.0
    if out["outlier_columns"]:  # the order of these sums is the BLAS's: values, to be compared within rounding
        out["y"] = y.reshape(-1).tolist()
    else:
        out["y_sha256"] = sha(y.numpy())
    return out


def cases():
    def case(rows, out, inputs, dtype="float32", bias=False, x_scale=2e-5, threshold=6.0, planted=()):
        return {"dtype": dtype, "rows": rows, "out": out, "in": inputs, "bias": bias, "x_scale": x_scale,
                "threshold": threshold, "planted": [list(p) for p in planted]}

    for dtype in DTYPES:
        for bias in (False, True):
            for rows, out, inputs in [(1, 70, 33), (1, 64, 2048), (5, 130, 96), (67, 3, 1), (18, 65, 1001)]:
                yield case(rows, out, inputs, dtype, bias)
            # Outliers: a lone one, some in one column, in a row of their own, of both signs.
            yield case(1, 21, 40, dtype, bias, planted=[(0, 7, 20.0)])
            yield case(6, 21, 40, dtype, bias, planted=[(1, 3, -6.0), (4, 3, 50.0), (2, 39, 7.5)])
            yield case(3, 9, 130, dtype, bias, planted=[(2, i, (-1.0) ** i * (6 + i)) for i in range(0, 130, 5)])
    # Values around the threshold: fp16 rounds 5.998 to 5.99609375 and 5.9981 to 6.
    yield case(2, 11, 24, planted=[(0, 1, 5.998)])
    yield case(2, 11, 24, planted=[(0, 1, 5.9981)])
    # Beyond fp16, and a row of nothing but outliers (the largest of the others is 0).
    yield case(3, 11, 24, planted=[(0, 5, 1e6), (1, 5, -65520.0)])
    yield case(2, 11, 8, planted=[(1, i, 8.0 + i) for i in range(8)])
    yield case(2, 11, 8, planted=[(1, i, 0.0) for i in range(8)])
    # No rule, another rule, a threshold of 4.099 (4.09765625 in fp16) on 4.098 (the same); subnormals of fp16.
    yield case(4, 11, 24, threshold=0.0, planted=[(0, 5, 70.0)])
    yield case(4, 11, 24, threshold=2.5)
    yield case(4, 11, 24, threshold=4.099, planted=[(0, 5, 4.098)])
    yield case(4, 11, 24, x_scale=1e-11)


def main():
    goldens = []
    for case in cases():
        case["seed"] = 10 * (len(goldens) + 1)
        goldens.append(run(case))
    path = pathlib.Path(__file__).parent / "goldens" / "int8.json"
    path.write_text("[\n" + ",\n".join(json.dumps(g) for g in goldens) + "\n]\n")
    mixed = sum("y" in g for g in goldens)
    print(VERSION, path, len(goldens), "cases,", mixed, "with outliers")


if __name__ == "__main__":
    main()
