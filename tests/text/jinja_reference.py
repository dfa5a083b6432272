"""Renders chat templates as transformers 4.57.6 does, for the goldens of text/jinja.

The environment is the one of transformers/utils/chat_template_utils.py: jinja2's immutable sandbox with trim_blocks,
lstrip_blocks, the loop controls, the generation tag, tojson by json.dumps, raise_exception and strftime_now.
Needs jinja2==3.1.6 (tests/interop/requirements-4.txt); made with Python 3.11.
"""

import datetime
import json

import jinja2
import jinja2.ext
import jinja2.sandbox

assert jinja2.__version__ == "3.1.6", jinja2.__version__

NOW = datetime.datetime(2024, 7, 4, 9, 5, 7, 123)


class Generation(jinja2.ext.Extension):
    """{% generation %}: its body is a call block of its own, whose text is printed."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("text"), [], [], body).set_lineno(line)

    def text(self, caller):
        return caller()


class Raised(jinja2.TemplateError):
    """What raise_exception raises."""


def raise_exception(message):
    raise Raised(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


ENVIRONMENT = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
ENVIRONMENT.filters["tojson"] = tojson
ENVIRONMENT.globals["raise_exception"] = raise_exception
ENVIRONMENT.globals["strftime_now"] = lambda format: NOW.strftime(format)


def render(source, context):
    """{"text": ...}, {"raised": message of raise_exception}, or {"error": what Python says}."""
    try:
        return {"text": ENVIRONMENT.from_string(source).render(**context)}
    except Raised as e:
        return {"raised": str(e)}
    except Exception as e:
        return {"error": f"{type(e).__name__}: {e}".split("\n")[0]}
