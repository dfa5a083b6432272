"""Runs the benchmarks and writes BENCHMARKS.md; see bench/run."""

import argparse
import collections
import datetime
import json
import os
import pathlib
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
NIBBLE = BUILD / "nibble"
PUBLISHED = ROOT / "tests/model/configs"
TOKENIZER = ROOT / "models/qwen2-vl-tiny"
GIB = 1 << 30
SHARE, TIMES, SECONDS, MEMORY = "{:.0%}", "{:.2f} times", "{:.2f} s", "{:.2f} GiB"


class Rows:
    """The lines of BENCHMARKS.md by part, kept in a file between runs."""

    def __init__(self, path):
        self.path, self.parts = path, json.loads(path.read_text()) if path.exists() else {}

    def start(self, part):
        self.part = part
        self.parts[part] = {"date": f"{datetime.date.today()}", "machine": machine(), "rows": []}

    def add(self, what, ours, peer, value, limit, kind, more=False):
        """A line: `value` in the format `kind`, at most `limit` (or, with `more`, at least)."""
        holds = value >= limit if more else value <= limit
        bound = ("at least " if more else "at most ") + kind.format(limit)
        row = [what, ours, peer, kind.format(value), bound, "yes" if holds else "**no**"]
        self.put(row)

    def skip(self, what, reason):
        """A line for what was not run, and why."""
        self.put([what, f"not run: {reason}", "-", "-", "-", "-"])

    def put(self, row):
        print(" | ".join(row), flush=True)
        self.parts[self.part]["rows"].append(row)
        self.path.write_text(json.dumps(self.parts, indent=1) + "\n")


def machine():
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    version = run(NIBBLE, "--version")[2].strip()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    return f"{len(os.sched_getaffinity(0))} cores of {cpu}, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}; {version}"


def run(*command, **options):
    """Seconds, peak resident bytes and standard output of a command."""
    start = time.perf_counter()
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, text=True, **options)
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"bench: {' '.join(map(str, command))} failed")
    return time.perf_counter() - start, usage.ru_maxrss * 1024, out


def google(program, pattern):
    """Real seconds, bytes and items per second by name."""
    _, _, out = run(BUILD / program, f"--benchmark_filter={pattern}", "--benchmark_format=json",
                    "--benchmark_repetitions=3", "--benchmark_report_aggregates_only=true",
                    stderr=subprocess.DEVNULL)  # fmt: skip
    return {b["run_name"].removesuffix("/real_time"): b for b in json.loads(out)["benchmarks"]
            if b["aggregate_name"] == "median"}  # fmt: skip


def peer(*arguments):
    return json.loads(run(sys.executable, ROOT / "bench/peer.py", *arguments, stderr=subprocess.DEVNULL)[2].splitlines()[-1])


def rate(bytes_per_second):
    return f"{bytes_per_second / 1e9:.1f} GB/s"


def flops(items_per_second):
    return f"{items_per_second / 1e9:.0f} GFLOP/s"


def fabricated(scratch, name, *options, layers=None):
    """A checkpoint of a published size; with `layers`, of so many blocks, and a quarter in the tower."""
    folder = scratch / (name + (f"-{layers}" if layers else "") + "".join(options).replace("--", "-"))
    if folder.exists():
        return folder
    print(f"making {folder}", flush=True)
    source = PUBLISHED / f"{name}.json"
    if layers:
        config = json.loads(source.read_text())
        config["num_hidden_layers"] = layers
        config["vision_config"]["depth"] = layers // 4
        source = scratch / f"{name}-{layers}.json"
        source.write_text(json.dumps(config))
    run(BUILD / "tools/fabricate", source, "-o", folder, "--tokenizer", TOKENIZER, *options)
    # The small tokenizer has special tokens of its own.
    path = folder / "config.json"
    ids = {k: v for k, v in json.loads((TOKENIZER / "config.json").read_text()).items() if k.endswith("_token_id")}
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {k: v for k, v in ids.items() if k in config}, indent=2) + "\n")
    return folder


def size(folder):
    return sum(f.stat().st_size for f in folder.glob("*.safetensors"))


def forget(folder):
    """Drops a folder's files from the page cache."""
    for file in folder.glob("*.safetensors"):
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def codes(rows, _):
    g = google("bench_codes", ".")
    speed = g["copy"]["bytes_per_second"]
    for what in ("encode", "decode"):
        for form in ("nf4", "fp4"):
            ours = g[f"{what}/{form}_many"]["bytes_per_second"]
            rows.add(f"{form.upper()} {what}, read and written", rate(ours), f"copy: {rate(speed)}", ours / speed, 0.5, SHARE, True)
    other = peer("codes")
    for what, name, least in (("encode", "quantize", 20), ("decode", "dequantize", 1.5)):
        ours = g[f"{what}/nf4_one"]["real_time"] / 1e9
        rows.add(f"NF4 {what}, 4096 x 4096 bf16", f"{ours * 1e3:.1f} ms", f"bitsandbytes: {other[name] * 1e3:.0f} ms",
                 other[name] / ours, least, "{:.1f} times as fast", True)  # fmt: skip


def products(rows, _):
    g = google("bench_linear4", "read|onednn|decode/nf4_bf16/1/|prefill/.*/512")
    reference = g["onednn/512"]["items_per_second"]
    for name, what in (("16_bit_bf16", "16-bit weights"), ("nf4_bf16", "4-bit weights")):
        ours = g[f"prefill/{name}/512"]["items_per_second"]
        rows.add(f"512 rows by {what}", flops(ours), f"oneDNN bf16: {flops(reference)}", ours / reference, 0.5, SHARE, True)
    ours, speed = g["decode/nf4_bf16/1"]["bytes_per_second"], g["read"]["bytes_per_second"]
    rows.add("1 row by 4-bit weights, bytes of these", rate(ours), f"reading: {rate(speed)}", ours / speed, 0.6, SHARE, True)


def checkpoint(rows, scratch):
    source, out = fabricated(scratch, "Qwen2-VL-2B-Instruct"), scratch / "out"
    command = [NIBBLE, "quantize", source, "-o", out, "--force", "--policy", "vision", "--rounding", "plain", "--quiet"]
    copy(source, 0, scratch / "copy")  # into the page cache
    for state in ("warm", "cold"):
        times, others = [], []
        for _ in range(3):
            if state == "cold":
                forget(source)
            seconds, peak, _ = run(*command)
            times.append(seconds)
            if state == "cold":
                forget(source)
            others.append(copy(source, size(out), scratch / "copy"))
        ours, other = statistics.median(times), statistics.median(others)
        rows.add(f"quantize 2B, page cache {state}", SECONDS.format(ours), f"cat and write: {SECONDS.format(other)}",
                 ours / other, 1.3, TIMES)  # fmt: skip
    rows.add("quantize 2B, peak memory", MEMORY.format(peak / GIB), "-", peak / GIB, 1, MEMORY)


def copy(source, written, target):
    """Seconds of reading a checkpoint's files and writing so many bytes to a disk, one after the other."""
    start = time.perf_counter()
    buffer = bytearray(8 << 20)
    for file in source.glob("*.safetensors"):
        with open(file, "rb", buffering=0) as opened:
            while opened.readinto(buffer):
                pass
    with open(target, "wb", buffering=0) as opened:
        while written > 0:
            written -= opened.write(memoryview(buffer)[: min(written, len(buffer))])
        os.fsync(opened.fileno())
    seconds = time.perf_counter() - start
    target.unlink()
    return seconds


def operations(products):
    """Multiplications and additions of counted products (rows, in, out)."""
    return sum(2 * rows * inputs * outs * count for (rows, inputs, outs), count in products.items())


def onednn(products):
    """Seconds of oneDNN's bf16 products of the same shapes, as often."""
    shapes = [f"{rows},{inputs},{outs},{count}" for (rows, inputs, outs), count in products.items()]
    return json.loads(run(BUILD / "bench_onednn", *shapes)[2])["seconds"]


def linears(record):
    """The linears of a forward pass in order, as in the inventory, and the rows of each by modality."""
    rows = {e["name"]: {m: x["rows"] for m, x in e["activation"].items()} for e in record["errors"]}
    return [(x, rows[x["name"]]) for x in record["inventory"]["linears"]]


def error_products(record):
    """What activation errors are: all rows with each linear's weight, and with what it loses. (Gram matrices would take
    more: there are fewer rows than inputs and outputs.) The products inside attention, a hundredth, are left out."""
    return collections.Counter(2 * [(sum(rows.values()), *x["shape"][::-1]) for x, rows in linears(record)])


def solo_products(record, config):
    """What the KL of groups alone is: a forward pass in 16 bits; for each run the linears from its group on, which all
    see other inputs than in 16 bits; and of each the logits of the answers. Of a group of the tower or the projector, only
    rows and answers that see pictures: the others stay as they are."""
    ordered = linears(record)
    head = (config["hidden_size"], config["vocab_size"])
    positions = lambda modalities: sum(x["positions"] for x in record["inputs"] if x["modality"] in modalities)
    products = collections.Counter((sum(rows.values()), *x["shape"][::-1]) for x, rows in ordered)
    products[positions(["vision", "text"]), *head] += 1
    for solo in record["solo"]:
        begin = next(i for i, (x, _) in enumerate(ordered) if x["group"] == solo["group"])
        reached = ["vision", "text"] if ordered[begin][0]["part"] == "text" else ["vision"]
        products.update((sum(rows[m] for m in reached), *x["shape"][::-1]) for x, rows in ordered[begin:])
        products[positions(reached), *head] += 1
    return products


def calibration(scratch, texts):
    """Options that give eight pictures and some texts of nibble's own, each picture with one question."""
    data = scratch / "data"
    data.mkdir(exist_ok=True)
    pictures = [json.loads(line) for line in (ROOT / "pictures/calibration/samples.jsonl").read_text().splitlines()]
    seen = {p["image"]: {**p, "image": str(ROOT / "pictures/calibration" / p["image"])} for p in pictures}
    samples, plain = data / "samples.jsonl", data / f"texts{texts}.jsonl"
    samples.write_text("".join(json.dumps(p) + "\n" for p in list(seen.values())[:8]))
    plain.write_text("".join((ROOT / "texts/calibration.jsonl").read_text().splitlines(keepends=True)[:texts]))
    return ["--data", samples, "--data", plain]


def measured(source, record, data, effort):
    """Seconds and peak bytes of measuring, and the record."""
    record.unlink(missing_ok=True)
    seconds, peak, _ = run(NIBBLE, "measure", source, *data, "--rounding", "plain", "--effort", effort, "--compute", "bf16",
                           "-o", record, "--quiet")  # fmt: skip
    return seconds, peak, json.loads(record.read_text())


def add_rate(rows, what, products, seconds, peer_seconds):
    work = operations(products)
    rows.add(f"{what}, {SECONDS.format(seconds)}", flops(work / seconds),
             f"oneDNN bf16, the same products: {flops(work / peer_seconds)}", peer_seconds / seconds, 0.6, SHARE, True)  # fmt: skip


def measure(rows, scratch):
    source, data = fabricated(scratch, "Qwen2-VL-2B-Instruct"), calibration(scratch, 8)
    seconds, peak, record = measured(source, scratch / "measurements.json", data, "none")
    products = error_products(record)
    add_rate(rows, "measure 2B, activation errors", products, seconds, onednn(products))
    rows.add("measure 2B, activation errors, peak memory", MEMORY.format(peak / GIB), "-", peak / GIB, 2, MEMORY)
    # Of the full width, with fewer layers: the time of all would be most of an hour.
    layers = 12
    source, data = fabricated(scratch, "Qwen2-VL-2B-Instruct", layers=layers), calibration(scratch, 2)
    alone, _, _ = measured(source, scratch / "measurements-cut.json", data, "none")
    seconds, peak, record = measured(source, scratch / "measurements-cut.json", data, "full")
    products = solo_products(record, json.loads((source / "config.json").read_text()))
    add_rate(rows, f"measure {layers} layers of 2B, {len(record['solo'])} groups alone", products, seconds - alone, onednn(products))
    # The hidden states of its branches may take 4 GiB (--memory), everything else 2.
    rows.add(f"measure {layers} layers of 2B, groups alone, peak memory with hidden states", MEMORY.format(peak / GIB), "-",
             peak / GIB, 4 + 2, MEMORY)  # fmt: skip


def feedback(rows, scratch):
    # Every linear rounded twice, for the inputs of the 16-bit model and in order.
    layers = 12
    source, data = fabricated(scratch, "Qwen2-VL-2B-Instruct", layers=layers), calibration(scratch, 2)
    plain, _, record = measured(source, scratch / "measurements-cut.json", data, "none")
    out, said = scratch / "out-feedback", scratch / "feedback.err"
    try:
        with open(said, "w") as stderr:
            seconds, peak, _ = run(NIBBLE, "quantize", source, "-o", out, "--force", *data, "--policy", "all", "--rounding",
                                   "feedback", "--compute", "bf16", "--quiet", stderr=stderr)  # fmt: skip
        guard = json.loads((out / "nibble.json").read_text())["plan"]["rounding"]["guard"]
    finally:
        for folder in (out, out.with_name(out.name + ".partial"), out.with_name(out.name + ".progress")):
            shutil.rmtree(folder, ignore_errors=True)
    told = re.search(r"takes ([0-9.]+) GiB of memory for matrices", said.read_text())
    told = float(told[1]) if told else 0
    what = f"quantize {layers} layers of 2B with feedback"
    rows.put([f"{what}, {guard} texts more", SECONDS.format(seconds), f"errors alone: {SECONDS.format(plain)}",
              TIMES.format(seconds / plain), "-", "-"])  # fmt: skip
    # As measuring is limited, without the matrices.
    rows.add(f"{what}, peak memory without matrices", MEMORY.format(peak / GIB), f"said for matrices: {MEMORY.format(told)}",
             peak / GIB - told, 2, MEMORY)  # fmt: skip


def generate(rows, scratch):
    source, four = fabricated(scratch, "Qwen2-VL-2B-Instruct"), scratch / "all4"
    run(NIBBLE, "quantize", source, "-o", four, "--force", "--policy", "all", "--quiet")
    g = google("bench_linear4", "read|onednn/512")
    inventory = json.loads(run(NIBBLE, "inspect", source, "--json")[2])["linears"]
    text = [x for x in inventory if x["part"] == "text"]
    weights = sum(x["shape"][0] * x["shape"][1] for x in text)
    word, words = " the", 512

    def seconds(prompt, tokens):
        return min(run(NIBBLE, "generate", four, "--raw", "--compute", "bf16", "--prompt", prompt,
                       "--max-new-tokens", tokens)[0] for _ in range(3))

    short = seconds(word, 1)
    prefill = (seconds(word * words, 1) - short) / (words - 1)
    token = (seconds(word, 33) - short) / 32
    ours, reference = 2 * weights / prefill, g["onednn/512"]["items_per_second"]
    rows.add("generate 2B from 4 bits, prefill of 512 tokens", flops(ours), f"oneDNN bf16: {flops(reference)}",
             ours / reference, 0.5, SHARE, True)  # fmt: skip
    # A token reads every 4-bit linear of the text part and the head, which is the embedding in 16 bits.
    config = json.loads((source / "config.json").read_text())
    read = (sum(x["bytes4"] for x in text) + 2 * config["vocab_size"] * config["hidden_size"]) / token
    speed = g["read"]["bytes_per_second"]
    rows.add("generate 2B, a token, bytes of weights", f"{token * 1e3:.0f} ms, {rate(read)}", f"reading: {rate(speed)}", read / speed,
             0.6, SHARE, True)  # fmt: skip
    other = peer("generate", four, words)
    rows.add("generate 2B, a token", f"{token * 1e3:.0f} ms", f"transformers: {other['token'] * 1e3:.0f} ms",
             other["token"] / token, 1, "{:.1f} times as fast", True)  # fmt: skip
    ours = prefill * words
    rows.add("generate 2B, prefill of 512 tokens", SECONDS.format(ours), f"transformers: {SECONDS.format(other['prefill'])}",
             other["prefill"] / ours, 1, "{:.1f} times as fast", True)  # fmt: skip
    peak = run(NIBBLE, "generate", four, "--raw", "--prompt", word, "--max-new-tokens", 8)[1]
    rows.add("generate 2B, peak memory over the file", MEMORY.format(peak / GIB), MEMORY.format(size(four) / GIB), peak / size(four),
             1.15, TIMES)  # fmt: skip


def large(rows, scratch):
    source, out = fabricated(scratch, "Llama-3.1-8B-Instruct"), scratch / "out8"
    data = calibration(scratch, 8)[2:]
    try:
        seconds, peak, record = measured(source, scratch / "measurements-large.json", data, "none")
        products = error_products(record)
        add_rate(rows, "measure 8B, activation errors", products, seconds, onednn(products))
        states = 4 * sum(record["rows"].values()) * json.loads((source / "config.json").read_text())["hidden_size"]
        rows.add("measure 8B, activation errors, peak memory without hidden states", MEMORY.format((peak - states) / GIB), "-",
                 (peak - states) / GIB, 2, MEMORY)  # fmt: skip
        plan = scratch / "plan-large.json"
        run(NIBBLE, "plan", scratch / "measurements-large.json", "--budget", "10%", "--policy", "activation-error", "-o", plan)
        forget(source)
        seconds, peak, _ = run(NIBBLE, "quantize", source, "-o", out, "--force", "--plan", plan, "--quiet")
        forget(source)
        other = copy(source, size(out), scratch / "copy")
        rows.add("quantize 8B by a plan, page cache cold", SECONDS.format(seconds), f"cat and write: {SECONDS.format(other)}", seconds / other,
                 1.3, TIMES)  # fmt: skip
        rows.add("quantize 8B by a plan, peak memory", MEMORY.format(peak / GIB), "-", peak / GIB, 1, MEMORY)
    finally:
        for folder in (source, out, out.with_name(out.name + ".partial")):
            shutil.rmtree(folder, ignore_errors=True)


def sparse(rows, scratch):
    source, out = fabricated(scratch, "Llama-3.2-90B-Vision-Instruct", "--sparse"), scratch / "out90"
    start = statistics.median(run(NIBBLE, "inspect", source)[0] for _ in range(5))
    rows.add("inspect 90B", SECONDS.format(start), "-", start, 0.3, SECONDS)
    inventory = json.loads(run(NIBBLE, "inspect", source, "--json")[2])
    need = inventory["other_bytes"] + sum(x["bytes4"] for x in inventory["linears"]) + GIB
    free = shutil.disk_usage(scratch).free
    if free < need:
        rows.skip("quantize 90B", f"it writes {need / GIB:.0f} GiB, and the disk has {free / GIB:.0f} GiB")
        return
    try:
        seconds, peak, _ = run(NIBBLE, "quantize", source, "-o", out, "--force", "--policy", "all", "--rounding", "plain",
                               "--quiet")  # fmt: skip
    finally:
        for folder in (out, out.with_name(out.name + ".partial")):
            shutil.rmtree(folder, ignore_errors=True)
    rows.add(f"quantize 90B ({seconds / 60:.1f} min), peak memory", MEMORY.format(peak / GIB), "-", peak / GIB, 1, MEMORY)


PARTS = {"codes": codes, "products": products, "checkpoint": checkpoint, "measure": measure, "feedback": feedback,
         "generate": generate, "large": large, "sparse": sparse}  # fmt: skip


def write(rows):
    text = ["# Benchmarks", "",
            "Made by `bench/run`: nibble and what it is held against, measured in one run on the machine named under each",
            "part. A share is of the peer's rate; the limit is what nibble sets itself.", ""]  # fmt: skip
    for name in PARTS:
        if name not in rows.parts:
            continue
        part = rows.parts[name]
        text += [f"## {name}", "", f"{part['date']}; {part['machine']}", "",
                 "| what | nibble | beside | ratio | limit | holds |", "|---|---|---|---|---|---|"]  # fmt: skip
        text += ["| " + " | ".join(row) + " |" for row in part["rows"]]
        text.append("")
    text.append((ROOT / "bench/notes.md").read_text().rstrip())
    (ROOT / "BENCHMARKS.md").write_text("\n".join(text).rstrip() + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--scratch", type=pathlib.Path, default=BUILD / "bench")
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], metavar="PART")
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    rows = Rows(BUILD / "bench.json")
    for name in options.parts or PARTS:
        rows.start(name)
        PARTS[name](rows, options.scratch)
        write(rows)


if __name__ == "__main__":
    main()
