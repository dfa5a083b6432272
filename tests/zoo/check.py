"""What nibble makes of the zoo's models, against the zoo's table. Run by tests/zoo/run as:
python3 check.py NIBBLE SHARED WORK [MODEL...]
"""

import json
import pathlib
import subprocess
import sys

# Captions, choices (of 96 each) of the first 96 evaluation pictures: 16 bit, all NF4, planted readers kept.
PICTURES = {"qwen2-vl": [(89, 96), (58, 86), (89, 96)],
            "mllama": [(85, 94), (21, 83), (83, 94)],
            "pixtral": [(70, 92), (15, 72), (69, 92)]}  # fmt: skip
# Loss on the evaluation texts, five-shot hits of 600: the same rows.
TEXTS = {"llama": [(2.9816, 462), (3.4727, 439), (3.0488, 459)],
         "phi3": [(2.9812, 537), (3.5498, 462), (3.0182, 527)]}  # fmt: skip
ROWS = ("16 bit", "all NF4", "planted readers kept")
COUNT_TOLERANCE, HITS_TOLERANCE, LOSS_TOLERANCE = 1, 3, 0.002
# A plan of nibble's own at the planted readers' cost: KL against all-4-bit's, and against keeping those readers.
PICTURE_KL, TEXT_KL = 0.02, 1.05

failed = passed = 0


def check(condition, what):
    global failed, passed
    passed, failed = passed + bool(condition), failed + (not condition)
    print(f"{'ok' if condition else 'FAILED':6} {what}", flush=True)


def nibble(binary, *arguments):
    done = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"nibble {' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return done.stdout


def published(name, linears):
    """The name in the files of a reader that the training report names by its place in the module tree."""
    text = "model.language_model."
    for ours in (name, name.removeprefix("model."), name.replace(text, "language_model.model."), name.replace(text, "model.")):
        if ours in linears:
            return ours
    sys.exit(f"no linear for {name}")


def quantize_all(binary, model, work):
    """Folders of 16 bit, all NF4, planted readers kept, and the bytes of the last."""
    linears = [linear["name"] for linear in json.loads(nibble(binary, "inspect", model, "--json"))["linears"]]
    planted = json.loads((model / "training_report.json").read_text())["planted"]
    readers = {published(r, linears) for plant in planted for r in plant["readers"]}
    listed = work / f"{model.name}.txt"
    listed.write_text("".join(f"{r}\n" for r in sorted(readers)))
    folders = [model]
    for name, policy in (("all", "all"), ("kept", f"list:{listed}")):
        folders.append(work / f"{model.name}.{name}")
        plan = json.loads(nibble(binary, "quantize", model, "-o", folders[-1], "--policy", policy, "--json"))
    return folders, plan["bytes"]


def compare(binary, folders, *options):
    return json.loads(nibble(binary, "compare", *folders, *options, "--compute", "f32", "--json"))


def counts(evaluation):
    """Exact captions and exact choices."""
    exact = [0, 0]
    for sample in evaluation["samples"]:
        exact["Answer with the letter" in sample["prompt"]] += sample["exact"]
    return tuple(exact)


def check_pictures(binary, shared, work, name):
    folders, kept_bytes = quantize_all(binary, shared / "zoo" / name, work)
    samples = (shared / "pictures/evaluation/samples.jsonl").read_text().splitlines()[:192]
    data = work / "evaluation.jsonl"
    folder = str(shared / "pictures/evaluation")
    data.write_text("".join(s.replace('"image": "', f'"image": "{folder}/', 1) + "\n" for s in samples))
    folders.append(work / f"{name}.dynamic")
    nibble(binary, "quantize", folders[0], "-o", folders[-1], "--budget", f"{kept_bytes}B",
           "--data", shared / "pictures/calibration/samples.jsonl", "--compute", "f32")  # fmt: skip
    rows = [row["evaluation"] for row in compare(binary, folders, "--data", data)]
    for row, evaluation, wanted in zip(ROWS, rows, PICTURES[name]):
        found = counts(evaluation)
        near = all(abs(a - b) <= COUNT_TOLERANCE for a, b in zip(found, wanted))
        check(near, f"{name}, {row}: {found[0]} captions and {found[1]} choices of 96; the table: {wanted}")
    kl = [row["answers"]["kl"]["mean"] for row in rows[1:]]
    check(kl[2] <= PICTURE_KL * kl[0],
          f"{name}, dynamic at the readers' cost: KL {kl[2]:.3g}, {100 * kl[2] / kl[0]:.2g} % of all NF4's")  # fmt: skip


def check_texts(binary, shared, work, name):
    folders, kept_bytes = quantize_all(binary, shared / "zoo" / name, work)
    folders.append(work / f"{name}.dynamic")
    window = ("--window", 192)
    nibble(binary, "quantize", folders[0], "-o", folders[-1], "--budget", f"{kept_bytes}B", *window,
           "--data", shared / "text/calibration.jsonl", "--compute", "f32")  # fmt: skip
    results = compare(binary, folders, "--data", shared / "text/evaluation.jsonl", *window,
                      "--mmlu", shared / "mmlu", "--no-special-tokens")  # fmt: skip
    for row, result, (loss, hits) in zip(ROWS, results, TEXTS[name]):
        texts, right = result["evaluation"]["texts"], result["multiple_choice"]["accuracy"]
        check(abs(texts["loss"]["mean"] - loss) <= LOSS_TOLERANCE,
              f"{name}, {row}: loss {texts['loss']['mean']:.4f}; the table: {loss}")  # fmt: skip
        check(abs(right["hits"] - hits) <= HITS_TOLERANCE,
              f"{name}, {row}: {right['hits']} of {right['total']} right; the table: {hits}")  # fmt: skip
    kl = [r["evaluation"]["texts"]["kl"]["mean"] for r in results[1:]]
    check(kl[2] <= TEXT_KL * kl[1], f"{name}, dynamic at the readers' cost: KL {kl[2]:.4f}, readers kept {kl[1]:.4f}")


def main():
    binary, shared, work = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    for name in sys.argv[4:] or [*PICTURES, *TEXTS]:
        (check_pictures if name in PICTURES else check_texts)(binary, shared, work, name)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
