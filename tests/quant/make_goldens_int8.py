"""Goldens of LLM.int8: what bitsandbytes' Linear8bitLt stores on a CPU and reads back, as hashes.

Run once with each pinned version, from the repository root:
    python tests/quant/make_goldens_int8.py        (bitsandbytes 0.48.2, torch 2.15)
    python tests/quant/make_goldens_int8.py        (bitsandbytes 0.50.2, torch 2.15)
Both write the same bytes to tests/quant/goldens/int8.json.
"""

import json
import pathlib

import bitsandbytes
import bitsandbytes.functional as F
import torch

from make_goldens import DTYPES, VERSION, samples, sha

SHAPES = [(1, 1), (1, 7), (3, 16), (5, 33), (17, 100), (64, 64), (9, 1025)]
# From ordinary weights (deviation 0.04) to rows that fp16 holds only as subnormals, and up to its largest.
SCALES = {"bfloat16": [1e-6, 4e-12, 0.45, 1], "float16": [1e-6, 4e-12, 0.45], "float32": [1e-6, 4e-12, 0.45, 1]}


def weight(case):
    """Samples times the scale; row r is zero where r is a multiple of zero_every, else times 2^-(r mod 4)."""
    out, inputs = case["shape"]
    x = torch.from_numpy(samples(case["seed"], out * inputs) * torch.tensor(case["scale"]).numpy())
    x = x.reshape(out, inputs) * 2.0 ** -(torch.arange(out) % 4)[:, None]
    if case["zero_every"]:
        x[:: case["zero_every"]] = 0
    return x.to(DTYPES[case["dtype"]])


def linear(w, bias=None, threshold=6.0):
    layer = bitsandbytes.nn.Linear8bitLt(w.shape[1], w.shape[0], bias=bias is not None, has_fp16_weights=False,
                                         threshold=threshold)
    layer.weight = bitsandbytes.nn.Int8Params(w, requires_grad=False, has_fp16_weights=False)
    if bias is not None:
        layer.bias = torch.nn.Parameter(bias, requires_grad=False)
    return layer.to("cpu").eval()


def run(case):
    tensors = linear(weight(case)).state_dict()
    decoded = F.int8_vectorwise_dequant(tensors["weight"], tensors["SCB"])
    assert decoded.dtype == torch.float32
    return dict(case, tensors={"." + k: [str(v.dtype)[6:], list(v.shape)] for k, v in sorted(tensors.items())},
                weight_format=int(tensors["weight_format"]), codes=sha(tensors["weight"].numpy()),
                scb=sha(tensors["SCB"].numpy()), decoded_f32=sha(decoded.numpy()),
                decoded_bf16=sha(decoded.bfloat16().view(torch.int16).numpy()),
                decoded_f16=sha(decoded.half().view(torch.int16).numpy()))


def main():
    goldens = []
    for dtype, scales in SCALES.items():
        for scale in scales:
            for shape in SHAPES:
                case = {"dtype": dtype, "shape": list(shape), "seed": len(goldens) + 1,
                        "scale": float(torch.tensor(scale)), "zero_every": 0 if shape[0] == 1 else 3}
                if scale == 1:  # beyond fp16: rows of infinite scale, whose decoded values are NaN
                    golden = run(case)
                    goldens.append({k: v for k, v in golden.items() if not k.startswith("decoded")})
                else:
                    goldens.append(run(case))
    path = pathlib.Path(__file__).parent / "goldens" / "int8.json"
    path.write_text("[\n" + ",\n".join(json.dumps(g) for g in goldens) + "\n]\n")
    print(VERSION, path, len(goldens), "cases")


if __name__ == "__main__":
    main()
