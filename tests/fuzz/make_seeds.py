#!/usr/bin/env python3
"""Writes first inputs for the fuzzers, made from the goldens of the other tests: make_seeds.py FOLDER
The committed corpus is what libFuzzer's -set_cover_merge=1 -use_counters=0 leaves of them and of what it found."""

import json
import pathlib
import sys

TESTS = pathlib.Path(__file__).resolve().parent.parent
MODELS = ["llama", "llava", "mllama", "phi3", "phi3_longrope"]  # as in checkpoint.cc


def texts(*parts):
    """Several texts in one input, as fuzz.h takes them apart."""
    return b"\0".join(part if isinstance(part, bytes) else part.encode() for part in parts)


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def safetensors():
    for path in sorted((TESTS / "io/goldens").glob("*.safetensors")):
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        yield (len(data) - 8 - length).to_bytes(2, "little") + data[8 : 8 + length].rstrip()


def checkpoint():
    for number, model in enumerate(MODELS):
        folder = TESTS / "data/goldens/families" / model
        for name in ("config.json", "config.v5.json"):
            yield bytes([number]) + compact(json.loads((folder / name).read_text())).encode()
    # Of one block, as the sanitizers are slow.
    for path in [TESTS / "model/configs/Qwen2-VL-2B-Instruct.json", TESTS / "interop/config.v5.json"]:
        one = json.loads(path.read_text())
        one.get("text_config", one)["num_hidden_layers"] = one["vision_config"]["depth"] = 1
        yield b"\0" + compact(one).encode()
    config = compact(json.loads((TESTS / "data/goldens/families/llama/config.json").read_text()))
    for file in ("model.safetensors", "../../etc/passwd", "/etc/passwd", "a.safetensors"):
        yield b"\0" + texts(config, compact({"weight_map": {"model.norm.weight": file}}))
    header = (TESTS / "data/goldens/families/llama/model.safetensors").read_bytes()
    names = [n for n in json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")]) if n != "__metadata__"]
    yield b"\0" + texts(config, compact({"weight_map": {name: "model.safetensors" for name in names}}))


def small_tokenizer(pre_tokenizer, **parts):
    vocab = ["<unk>", "a", "b", "Ġ", "Ã", "©", "1", ".", "ab", "Ġa", "Ġab", "<0x61>"]
    return {
        "version": "1.0",
        "added_tokens": [{"id": len(vocab), "content": "<s>", "single_word": False, "lstrip": True, "rstrip": True,
                          "normalized": False, "special": True}],
        "pre_tokenizer": pre_tokenizer,
        "model": {"type": "BPE", "vocab": {token: i for i, token in enumerate(vocab)},
                  "merges": ["a b", "Ġ a", ["Ġa", "b"]] if "merges" in parts else ["a b", "Ġ a", "Ġa b"]},
        "post_processor": {"type": "TemplateProcessing",
                           "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                           "special_tokens": {"<s>": {"id": "<s>", "ids": [len(vocab)], "tokens": ["<s>"]}}},
        "decoder": {"type": "ByteLevel"},
        **{key: value for key, value in parts.items() if key != "merges"},
    }


def tokenizer():
    text = " ab é1. <s>  aab\n\nab's 123 ｶﾞ"
    for path in sorted((TESTS / "text/goldens").glob("*.json")):
        golden = json.loads(path.read_text())
        if isinstance(golden, dict) and "tokenizer" in golden:
            parts = {key: golden["tokenizer"][key] for key in ("normalizer", "decoder")}
            yield texts(compact(small_tokenizer(golden["tokenizer"]["pre_tokenizer"], **parts)), text)
    patterns = json.loads((TESTS / "text/goldens/patterns.json").read_text())
    for pattern in sorted({pattern for pattern, *_ in patterns}):
        split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        yield texts(compact(small_tokenizer(split)), text)
    for extra in ({"fuse_unk": True, "unk_token": "<unk>"}, {"byte_fallback": True}, {"ignore_merges": True}):
        one = small_tokenizer({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True},
                                                                   {"type": "Punctuation"}]}, normalizer={"type": "NFKC"})
        one["model"].update(extra)
        yield texts(compact(one), text)


def template():
    for path in sorted((TESTS / "text/goldens/jinja").glob("*.jinja")):
        yield path.read_bytes()
    snippets = json.loads((TESTS / "text/goldens/jinja_snippets.json").read_text())
    for snippet in snippets[::4]:
        yield snippet["source"].encode()
    yield texts("{{ a }}{{ b.c[0] }}{{ d | tojson(indent=2) }}", '{"a": 1.5, "b": {"c": [null]}, "d": {"x": "é"}}')


def quant_state():
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [8, 16]}
    nested = {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.051}
    for change in ({}, nested, {"quant_type": "fp4"}, {"shape": []}, {"shape": [0]}, {"blocksize": 4096, "dtype": "float16"},
                   {"dtype": "float32", **nested}, {"shape": [3, 5, 7], "nested_blocksize": 1, **nested}):
        yield texts(json.dumps({**state, **change}), b"\0\1\2\3")
    for wrong in range(1, 32, 2):
        yield texts(json.dumps({**state, **nested}), bytes([wrong]))


def picture():
    for path in sorted((TESTS / "vision/goldens/pictures").iterdir()):
        yield path.read_bytes()


def samples():
    yield b'{"image": "a.png", "prompt": "What?", "answer": "This"}\n\n{"text": "plain"}\n'
    yield b'{"prompt": "a"}\r\n{"prompt": "b", "answer": "\\u00e9"}\n'
    yield b'{"images": ["a.png", "b.jpg"], "prompt": "x"}\n'
    yield b'{"images": [], "prompt": null}\n{"text": null, "prompt": "y"}'


def records():
    for path in sorted((TESTS / "records/goldens").glob("*.json")):
        record = json.loads(path.read_text())
        yield compact(record).encode()
        if "inventory" in record:
            yield compact(record["inventory"]).encode()
    named = {name: json.loads((TESTS / "records/goldens" / f"{name}.json").read_text())
             for name in ("plan", "evaluation", "multiple_choice")}
    yield compact({"nibble": "0.1.0", "command": "nibble quantize a", "tensor_bytes": 9, "plan": named["plan"],
                   "weight_errors": {"a": 0.5}, "sha256": {"a.weight": "00"}}).encode()
    spread = {"seeds": 2, "pictures": {"low": 0.1, "high": 0.2}}
    yield compact([{"description": "16 bit", "result": "", "unchanged": "1 of 2", "bytes": 9, "policy": "dynamic",
                    "rounding": "plain", "over_budget": False, "spread": spread, **named}]).encode()


def mmlu():
    yield b'What?,1,2,3,4,A\n"a ""b"", c\nd",x,y,z,"w",D\r\n'
    yield texts("\ufeffq,a,b,c,d,B\n\nq2,a,b,c,d,C", "e,a,b,c,d,A\n")
    yield b'q,a,b,c,d\n"open'


def main():
    folder = pathlib.Path(sys.argv[1])
    for make in (safetensors, checkpoint, tokenizer, template, quant_state, picture, samples, records, mmlu):
        target = folder / make.__name__
        target.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(make()):
            (target / f"seed{number:04d}").write_bytes(seed)


if __name__ == "__main__":
    main()
