"""Counts what transformers says a configuration is: parameters (a tied head once) and linears but for the head.

Run from the repository root with transformers 4.57.6 and torch 2.15.0 (tests/interop/requirements-4.txt):
    python tests/model/make_goldens.py
Reads tests/model/configs/*.json and writes tests/model/goldens/sizes.json. Models are made on the meta device.
"""

import json
import pathlib

import torch
import transformers

HERE = pathlib.Path(__file__).parent


def sizes(path):
    fields = json.loads(path.read_text())
    kind = getattr(transformers, fields["architectures"][0])
    with torch.device("meta"):
        model = kind(kind.config_class.from_dict(fields))
    model.tie_weights()
    linears = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"]
    return {"parameters": sum(p.numel() for p in model.parameters()), "linears": len(linears)}


def main():
    out = {path.stem: sizes(path) for path in sorted((HERE / "configs").glob("*.json"))}
    (HERE / "goldens").mkdir(exist_ok=True)
    (HERE / "goldens" / "sizes.json").write_text(json.dumps(out, indent=2) + "\n")
    print(out)


if __name__ == "__main__":
    main()
