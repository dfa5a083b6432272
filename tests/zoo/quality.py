"""Choosing and rounding on the zoo's models and their natural twins, against the limits that nibble holds itself to.
Run by tests/zoo/quality as: python3 quality.py NIBBLE SHARED WORK [MODEL...]

KL in nats per answer position or predicted token on inputs that took no part, from `nibble eval` in fp32. Plans
are calibrated on pictures (picture models) or texts; all-4-bit with feedback on both. A folder WORK/twins/MODEL,
where it exists, is the model with its planted outliers taken out (zoo/unplant.py).
"""

import json
import math
import pathlib
import subprocess
import sys
import time

from check import PICTURES, TEXTS, nibble, published

limits = []


def limit(what, value, most):
    limits.append(value <= most)
    print(f"{'ok' if value <= most else 'FAILED':6} {what}: {value:.3g}, at most {most:.3g}", flush=True)


class Bench:
    """One model: makes checkpoints and judges them."""

    def __init__(self, binary, shared, work, model, pictures):
        self.binary, self.model, self.work, self.pictures = binary, model, work, pictures
        self.images, self.texts = shared / "pictures/calibration", shared / "text/calibration.jsonl"
        self.judges = {"pictures": shared / "pictures/evaluation", "text": shared / "text/evaluation.jsonl"}
        self.home = "pictures" if pictures else "text"
        self.one = ("--data", self.images if pictures else self.texts)
        self.both = ("--data", self.images, "--data", self.texts) if pictures else self.one

    def quantize(self, name, *options):
        out = self.work / f"{self.model.name}.{name}"
        start = time.monotonic()
        plan = json.loads(nibble(self.binary, "quantize", self.model, "-o", out, "--force", "--window", 192,
                                 "--compute", "f32", "--json", *options))  # fmt: skip
        return out, plan, time.monotonic() - start

    def kl(self, folder, kind=None, label=""):
        kind = kind or self.home
        record = self.work / "evaluation.json"
        nibble(self.binary, "eval", folder, "--against", self.model, "--data", self.judges[kind], "--window", 192,
               "--no-generate", "--compute", "f32", "--json", record)  # fmt: skip
        evaluation = json.loads(record.read_text())
        totals = evaluation["answers" if kind == "pictures" else "texts"]
        kl = totals["kl"]
        if label:
            print(f"{self.model.name:9} {label:44} {evaluation['tensor_bytes']:>8} bytes, {kind} KL {kl['mean']:.3g} "
                  f"({kl['low']:.3g} to {kl['high']:.3g}), loss {totals['loss']['mean']:.4f}", flush=True)  # fmt: skip
        return kl


def all4(bench, twin):
    plain, _, _ = bench.quantize("all", "--policy", "all")
    better, _, _ = bench.quantize("feedback", "--policy", "all", "--rounding", "feedback", *bench.both)
    a, b = bench.kl(plain, label="all NF4"), bench.kl(better, label="all NF4, feedback")
    name = bench.model.name
    if not bench.pictures:
        limit(f"{name}: all-4-bit with feedback, text KL over plain's", b["mean"] / a["mean"], 0.85)
        return
    ta, tb = bench.kl(plain, "text", "all NF4"), bench.kl(better, "text", "all NF4, feedback")
    limit(f"{name}: all-4-bit with feedback, text KL over plain's", tb["mean"] / ta["mean"], 0.5)
    if twin:
        limit(f"{name}: all-4-bit with feedback, picture KL beyond plain's interval", b["mean"] / a["high"], 1)
    else:
        limit(f"{name}: all-4-bit with feedback, picture KL over plain's", b["mean"] / a["mean"], 0.05)
    alone, _, _ = bench.quantize("alone", "--policy", "all", "--rounding", "feedback", *bench.one)
    tc = bench.kl(alone, "text", "all NF4, feedback on pictures alone")
    limit(f"{name}: text KL of pictures alone over plain's", tc["mean"] / ta["mean"], 1.2)


def ranked(bench, budget, label):
    folder, _, _ = bench.quantize("ranked", "--policy", "activation-error", "--budget", budget, *bench.one)
    return bench.kl(folder, label=f"activation error, plain, {label}")["mean"]


def dynamic(bench, budget, label, *options):
    folder, plan, seconds = bench.quantize("dynamic", "--budget", budget, *bench.one, *options)
    print(f"{bench.model.name:9} dynamic {label}: {seconds:.1f} s", flush=True)
    return bench.kl(folder, label=f"dynamic, {label}")["mean"]


def planted_cost(bench):
    linears = [x["name"] for x in json.loads(nibble(bench.binary, "inspect", bench.model, "--json"))["linears"]]
    report = json.loads((bench.model / "training_report.json").read_text())
    listed = bench.work / "planted.txt"
    listed.write_text("".join(f"{published(r, linears)}\n" for p in report["planted"] for r in p["readers"]))
    folder, plan, _ = bench.quantize("planted", "--policy", f"list:{listed}")
    return bench.kl(folder, label="planted readers kept, plain")["mean"], plan["bytes"]


def check_model(bench, ratios):
    name = bench.model.name
    all4(bench, False)
    rank = ranked(bench, "10%", "+10 %")
    ten = dynamic(bench, "10%", "+10 %")
    ratios.append(ten / rank)
    limit(f"{name}: +10 % over activation error, plain", ten / rank, 0.65 if bench.pictures else 0.8)
    planted, cost = planted_cost(bench)
    at_cost = dynamic(bench, f"{cost}B", "planted cost")
    if bench.pictures:
        limit(f"{name}: +10 % over all planted readers kept", ten / planted, 1)
        limit(f"{name}: at the planted readers' cost over keeping them", at_cost / planted, 1 / 3)
    else:
        limit(f"{name}: at the planted cost over activation error, plain",
              at_cost / ranked(bench, f"{cost}B", "planted cost"), 0.8)  # fmt: skip
    return ten


def check_twin(bench):
    all4(bench, True)
    rank = ranked(bench, "10%", "+10 %")
    limit(f"{bench.model.name}'s twin: +10 % over activation error", dynamic(bench, "10%", "+10 %") / rank, 0.4)


def main():
    binary, shared, work = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    ratios = []
    for name in sys.argv[4:] or [*PICTURES, *TEXTS]:
        bench = Bench(binary, shared, work, shared / "zoo" / name, name in PICTURES)
        ten = check_model(bench, ratios)
        twin = work / "twins" / name
        if twin.exists():
            print(f"-- the natural twin of {name}")
            check_twin(Bench(binary, shared, work, twin, name in PICTURES))
        full = dynamic(bench, "10%", "+10 %, full effort", "--effort", "full")
        limit(f"{name}: effort auto over full", ten / full, 1.1)
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    print(f"+10 % over activation error: geometric mean {mean:.3g}")
    print(f"{sum(limits)} passed, {len(limits) - sum(limits)} failed")
    sys.exit(0 if all(limits) else 1)


if __name__ == "__main__":
    main()
