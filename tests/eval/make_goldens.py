"""Goldens of text quality: windows of plain text and multiple choice, transformers in fp32, models/qwen2-vl-tiny.

Run from the repository root with transformers 4.57.6, torch 2.15.0, tokenizers 0.22.2
(tests/interop/requirements-4.txt): python tests/eval/make_goldens.py
Reads tests/eval/texts.jsonl and tests/eval/mmlu, writes tests/eval/goldens/text.json: for each window of each text the
predicted tokens, their bytes, loss, KL and agreement of a damaged model against the whole one, and the totals; for each
question the log-probabilities of " A" to " D" with every number of examples that the test asks for.
"""

import csv
import json
import math
import pathlib
import unicodedata

import torch
import transformers

MODEL = "models/qwen2-vl-tiny"
HERE = pathlib.Path("tests/eval")
WINDOW = 20
SHOTS = [0, 2, 5]
DAMAGED = "model.layers.0.mlp.down_proj"  # zeros in its place make the other model


def load():
    return transformers.Qwen2VLForConditionalGeneration.from_pretrained(MODEL, dtype=torch.float32).eval()


def logits(model, ids):
    return model(input_ids=torch.tensor([ids])).logits[0].double()


def byte_counts(tokenizer, ids):
    """Of a byte-level token as many as it has characters, of an added one those of its content."""
    added = tokenizer.get_added_vocab()
    tokens = tokenizer.convert_ids_to_tokens(ids)
    return [len(t.encode()) if t in added else len(t) for t in tokens]


def windows(tokenizer, whole, damaged):
    out = []
    for line, text in enumerate((HERE / "texts.jsonl").read_text(encoding="utf-8").splitlines(), 1):
        text = json.loads(text)["text"]
        ids = tokenizer.encode(text, add_special_tokens=False)
        counts = byte_counts(tokenizer, ids)
        assert sum(counts) == len(unicodedata.normalize("NFC", text).encode())
        for number, at in enumerate(range(0, len(ids), WINDOW), 1):
            part = ids[at : at + WINDOW]
            if len(part) < 2:
                continue
            target = torch.tensor(part[1:])
            p, q = (logits(m, part)[:-1].log_softmax(-1) for m in (whole, damaged))
            out.append(
                {
                    "id": f"{line}#{number}",
                    "tokens": len(target),
                    "bytes": sum(counts[at + 1 : at + len(part)]),
                    "loss": -q.gather(1, target[:, None]).mean().item(),
                    "kl": (p.exp() * (p - q)).sum(-1).mean().item(),
                    "agreement": (p.argmax(-1) == q.argmax(-1)).double().mean().item(),
                }
            )
    return out


def totals(rows):
    tokens = sum(r["tokens"] for r in rows)
    mean = {k: sum(r[k] * r["tokens"] for r in rows) / tokens for k in ("loss", "kl", "agreement")}
    mean["perplexity"] = math.exp(mean["loss"])
    mean["loss_per_byte"] = mean["loss"] * tokens / sum(r["bytes"] for r in rows)
    return mean


def example(row, answered):
    question, *options, answer = row
    lines = [question] + [f"{letter}. {option}" for letter, option in zip("ABCD", options)]
    return "\n".join(lines) + "\nAnswer:" + (f" {answer}\n\n" if answered else "")


def rows_of(kind, subject):
    with open(HERE / "mmlu" / kind / f"{subject}_{kind}.csv", encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def choices(tokenizer, model):
    letters = [tokenizer.encode(f" {letter}", add_special_tokens=False) for letter in "ABCD"]
    assert all(len(ids) == 1 for ids in letters)
    out = []
    for path in sorted((HERE / "mmlu" / "test").glob("*_test.csv")):
        subject = path.name.removesuffix("_test.csv")
        examples = rows_of("dev", subject)
        head = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
        for shots in SHOTS:
            shown = head + "".join(example(row, True) for row in examples[:shots])
            for row in rows_of("test", subject):
                prompt = shown + example(row, False)
                ids = tokenizer.encode(prompt)
                last = logits(model, ids)[-1].log_softmax(-1)
                values = [last[i].item() for (i,) in letters]
                best = sorted(values)
                assert best[-1] - best[-2] > 1e-3, "two options are about equally likely: choose another question"
                out.append(
                    {
                        "subject": subject,
                        "shots": shots,
                        "examples": min(shots, len(examples)),
                        "prompt": prompt,
                        "tokens": len(ids),
                        "answer": row[5],
                        "log_probabilities": values,
                    }
                )
    return out


def main():
    torch.set_grad_enabled(False)
    tokenizer = transformers.Qwen2TokenizerFast.from_pretrained(MODEL)
    whole, damaged = load(), load()
    modules = dict(damaged.named_modules())
    modules[DAMAGED.replace("model.", "model.language_model.", 1)].weight.zero_()
    rows = windows(tokenizer, whole, damaged)
    document = {
        "window": WINDOW,
        "damaged": DAMAGED,
        "windows": rows,
        "totals": totals(rows),
        "choices": choices(tokenizer, whole),
    }
    (HERE / "goldens" / "text.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
