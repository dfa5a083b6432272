"""What users would otherwise run: transformers with bitsandbytes on the CPU. Prints one JSON object.

    peer.py codes                   seconds of quantize_4bit and dequantize_4bit, NF4 of a 4096 x 4096 bf16 matrix
    peer.py generate CHECKPOINT N   seconds of prefilling N tokens and of one more token, 4-bit weights
"""

import json
import statistics
import sys
import time

import torch


def seconds(work, repeats):
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def codes():
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    torch.manual_seed(1)
    weight = (torch.randn(4096, 4096) * 0.02).to(torch.bfloat16)
    packed, state = quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    return {
        "quantize": seconds(lambda: quantize_4bit(weight, quant_type="nf4", compress_statistics=True), 7),
        "dequantize": seconds(lambda: dequantize_4bit(packed, state), 21),
    }


def generate(checkpoint, tokens):
    from transformers import Qwen2VLForConditionalGeneration

    model = Qwen2VLForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.bfloat16)
    prompt = {"input_ids": torch.randint(5, 400, (1, tokens)), "attention_mask": torch.ones(1, tokens, dtype=torch.long)}
    with torch.no_grad():
        start = time.perf_counter()
        out = model(**prompt, use_cache=True, logits_to_keep=1)
        prefill = time.perf_counter() - start
        cache, steps = out.past_key_values, 8
        token = torch.tensor([[7]])
        start = time.perf_counter()
        for _ in range(steps):
            cache = model(input_ids=token, past_key_values=cache, use_cache=True).past_key_values
        return {"prefill": prefill, "token": (time.perf_counter() - start) / steps}


if __name__ == "__main__":
    result = codes() if sys.argv[1] == "codes" else generate(sys.argv[2], int(sys.argv[3]))
    print(json.dumps({"threads": torch.get_num_threads(), **result}))
