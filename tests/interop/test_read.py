"""nibble reads the 4-bit checkpoints that transformers and bitsandbytes write themselves.

Run by tests/interop/run as: python test_read.py NIBBLE WORK (made by cases.py)
"""

import json
import pathlib
import sys

import numpy as np
import torch
import transformers
from transformers import BitsAndBytesConfig

import cases
import decode4
import readers
from checks import Checks, expect, expect_equal, expect_same_set

KINDS = {
    # name: options of BitsAndBytesConfig
    "nf4_double": {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "nf4": {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": False},
    "fp4_double": {"bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": True},
    "fp4": {"bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": False},
    "nf4_skip": {
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "llm_int8_skip_modules": ["lm_head", "model.visual.blocks.2.mlp.fc1", "model.language_model.layers.3.mlp.up_proj"],
    },
}
SKIPPED = ["visual.blocks.2.mlp.fc1", "model.layers.3.mlp.up_proj"]


def write_checkpoint(folder, options):
    """What transformers makes of the shipped model; tokenizer and processor files are copied beside it."""
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16, **options)
    model = readers.load(cases.MODEL, quantization_config=config, dtype=torch.bfloat16)
    cases.copy_side_files(folder)
    model.save_pretrained(folder)


def check_storage(binary, folder, kind):
    """nibble inspect says for each linear how it is stored."""
    storage = json.loads(cases.nibble(binary, "inspect", folder, "--json"))["storage"]["linears"]
    quantized = decode4.quantized_linears(decode4.read_tensors(folder))
    expect_same_set([n for n, s in storage.items() if s["stored"] != "bf16"], quantized, "4-bit linears")
    for name, state in quantized.items():
        expect_equal(storage[name]["stored"], state["quant_type"], name)
    skipped = SKIPPED if kind == "nf4_skip" else []
    expect_same_set([n for n in storage if n not in quantized], skipped, "linears in 16 bits")
    return f"{len(quantized)} linears"


def check_text(binary, folder, samples, prompts, jsonl):
    """nibble's greedy text is that of an fp32 model with the decoded weights."""
    ours = cases.answers(binary, folder, jsonl)
    theirs = prompts.greedy(readers.load_carrier(folder), samples)
    for sample, a, b in zip(samples, ours, theirs, strict=True):
        expect(a == b, f"{sample['prompt']!r}: nibble {a!r}, transformers {b!r}")
    image = ["--image", samples[0]["images"][0]]
    said = cases.nibble(binary, "generate", folder, *image, "--prompt", samples[0]["prompt"], "--compute", "f32")
    expect_equal(said, theirs[0] + "\n", "generate")
    return f"{len(samples)} answers"


# bitsandbytes 0.50 finds the codes of double quantization on a CPU in a table of 65536 cells over [-1, 1].
CELL = 2.0**-15


def check_bytes(theirs_folder, ours_folder):
    """NF4 of bf16 weights is byte-equal. Double quantization follows from the mean that each file states: nibble's to
    the byte, theirs to a cell of the table that they look codes up in. The means differ by 2 ulp at most, the order
    of their sum not being defined."""
    theirs, ours = decode4.read_tensors(theirs_folder), decode4.read_tensors(ours_folder)
    source = decode4.read_tensors(cases.MODEL)
    states, our_states = decode4.quantized_linears(theirs), decode4.quantized_linears(ours)
    expect_same_set(our_states, states, "quantized linears")
    means = codes = 0
    for name, state in states.items():
        weight = f"{name}.weight"
        for key in (weight, f"{weight}.quant_map"):
            expect(torch.equal(theirs[key], ours[key]), f"{key} differs")
        offset, our_offset = np.float32(state.pop("nested_offset")), np.float32(our_states[name].pop("nested_offset"))
        expect_equal(our_states[name], state, f"quant_state of {name}")
        distance = abs(int(offset.view(np.int32)) - int(our_offset.view(np.int32)))
        expect(distance <= 2, f"{name}: nested_offset {our_offset!r} is not {offset!r}")
        means += distance > 0
        check_absmax(ours, source[weight], weight, our_offset, 0)
        codes += check_absmax(theirs, source[weight], weight, offset, CELL)
    return f"{len(states)} linears; of theirs {means} means end in another bit, {codes} absmax codes are in the next cell"


def check_absmax(tensors, source, weight, offset, slack):
    """The doubly quantized absmax of a file are the nearest values of its map, up to `slack`. Gives how many are not
    the very nearest."""
    table = tensors[f"{weight}.nested_quant_map"].numpy().astype(np.float64)
    nearest, scales, x = decode4.nested_codes(source, offset, table)
    expect(np.array_equal(scales, tensors[f"{weight}.nested_absmax"].numpy()), f"{weight}.nested_absmax differs")
    codes = tensors[f"{weight}.absmax"].numpy().reshape(-1)
    apart = np.abs(x - table[codes]) - np.abs(x - table[nearest])
    if slack == 0:
        expect(np.array_equal(codes, nearest), f"{weight}.absmax does not follow from the mean")
    expect(apart.max() <= slack, f"{weight}.absmax is off by {apart.max():g}")
    return int((codes != nearest).sum())


def main():
    binary, work = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    checks = Checks(f"nibble reads what transformers {transformers.__version__} wrote")
    theirs = work / f"transformers-{transformers.__version__}"
    samples = [json.loads(line) for line in (work / "last.jsonl").read_text().splitlines()]
    prompts = readers.Prompts(cases.MODEL)
    for kind, options in KINDS.items():
        folder = theirs / kind
        write_checkpoint(folder, options)
        checks.run(f"{kind}, storage", check_storage, binary, folder, kind)
        checks.run(f"{kind}, greedy text", check_text, binary, folder, samples, prompts, work / "last.jsonl")
    checks.run("nf4_double, bytes", check_bytes, theirs / "nf4_double", work / "out" / "all")
    checks.finish()


if __name__ == "__main__":
    main()
