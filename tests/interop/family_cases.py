"""Makes what test_families.py looks at: the tiny models of all families, quantized by nibble in several ways, and what
nibble computes with them. Run by tests/interop/run as: python family_cases.py NIBBLE WORK

WORK/families.json lists the checkpoints, each with a trace of one raw prompt.
"""

import json
import pathlib
import random
import shutil
import sys

from cases import nibble

ROOT = pathlib.Path(__file__).resolve().parents[2]
FAMILIES = ROOT / "tests" / "data" / "goldens" / "families"
PICTURE = ROOT / "pictures" / "evaluation" / "images" / "0003.jpg"
PROMPTS = {"llava": "a [IMG] picture", "mllama": "a <|image|> picture"}


def copy_source(family, folder, v5):
    folder.mkdir(parents=True)
    for path in (FAMILIES / family).iterdir():
        if not path.name.startswith(("prompts.", "config.")):
            shutil.copy(path, folder)
    shutil.copy(FAMILIES / family / ("config.v5.json" if v5 else "config.json"), folder / "config.json")


def random_list(binary, model, path):
    """A list file of a third of the model's groups."""
    linears = json.loads(nibble(binary, "inspect", model, "--json"))["linears"]
    groups = sorted({linear["group"] for linear in linears})
    chosen = set(random.Random(len(linears)).sample(groups, len(groups) // 3))
    path.write_text("".join(f"{linear['name']}\n" for linear in linears if linear["group"] in chosen))


def main():
    binary, work = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    cases = []
    for family in sorted(p.name for p in FAMILIES.iterdir() if (p / "config.json").exists()):
        for style in ("published", "v5"):
            source = work / "families" / f"{family}.{style}"
            copy_source(family, source, style == "v5")
            random_list(binary, source, work / f"{family}.{style}.txt")
            policies = {"list": f"list:{work / f'{family}.{style}.txt'}", "int8": "int8"}
            for name, policy in policies.items():
                out = work / "families" / f"{family}.{style}.{name}"
                nibble(binary, "quantize", source, "-o", out, "--policy", policy)
                trace = work / "families" / f"{out.name}.safetensors"
                images = ["--image", PICTURE] if family in PROMPTS else []
                prompt = PROMPTS.get(family, "The quick brown fox")
                nibble(binary, "trace", out, "--raw", "--prompt", prompt, *images, "-o", trace, "--compute", "f32")
                cases.append({"name": out.name, "family": family, "format": name, "folder": str(out), "trace": str(trace)})
    (work / "families.json").write_text(json.dumps(cases))
    print(f"{len(cases)} checkpoints of {len(cases) // 4} families made")


if __name__ == "__main__":
    main()
