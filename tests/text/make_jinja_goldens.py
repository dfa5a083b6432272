"""Writes the goldens of text/jinja: what jinja2 makes of chat templates and of many small snippets.

Run from the repository root: python3 tests/text/make_jinja_goldens.py [FOLDER ...]
Needs jinja2==3.1.6 and follows transformers 4.57.6 (jinja_reference.py). The templates are goldens/jinja/*.jinja; each
FOLDER of a checkpoint adds the chat template of its chat_template.json or tokenizer_config.json as zoo_NAME.jinja.
"""

import copy
import json
import pathlib
import sys

import jinja_cases
import jinja_reference

GOLDENS = pathlib.Path(__file__).parent / "goldens"


def add_checkpoint(folder):
    for name in ("chat_template.json", "tokenizer_config.json"):
        file = folder / name
        template = json.loads(file.read_text()).get("chat_template") if file.exists() else None
        if template:
            (GOLDENS / "jinja" / f"zoo_{folder.name}.jinja").write_text(template)
            return
    raise SystemExit(f"{folder}: has no chat template")


def rendered(source, context):
    """The result for a golden; of an error only that it is one, as its text is Python's."""
    result = jinja_reference.render(source, copy.deepcopy(context))
    assert " at 0x" not in result.get("text", ""), source
    return {"error": True} if "error" in result else result


def write(name, cases):
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    (GOLDENS / name).write_text(f"[\n{lines}\n]\n")


def templates():
    sources = sorted((GOLDENS / "jinja").glob("*.jinja"))
    for source in sources:
        # In text mode Python would turn \r\n into \n.
        text = source.read_bytes().decode()
        for name, context in jinja_cases.CONTEXTS.items():
            yield {"template": source.name, "context": name} | rendered(text, context)


def snippets():
    for source in jinja_cases.snippets():
        yield {"source": source} | rendered(source, jinja_cases.SNIPPET_CONTEXT)


def main():
    for folder in sys.argv[1:]:
        add_checkpoint(pathlib.Path(folder))
    write("jinja_templates.json", templates())
    write("jinja_snippets.json", snippets())
    contexts = {"contexts": jinja_cases.CONTEXTS, "snippets": jinja_cases.SNIPPET_CONTEXT}
    (GOLDENS / "jinja_contexts.json").write_text(json.dumps(contexts, ensure_ascii=False, indent=1) + "\n")


main()
