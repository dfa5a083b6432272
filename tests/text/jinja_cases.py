"""What make_jinja_goldens.py renders: contexts of chats, and snippets built from lists of operands, filters, tests, methods
and tags."""

import itertools

TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": None, "unk_token": "<unk>"}

TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "The weather in a city, \"now\" or later: 20 °C ☀️ <b>",
        "parameters": {"type": "object", "properties": {
            "city": {"type": "string", "description": "Größe egal: 東京, Zürich"},
            "days": {"type": "integer", "default": 3},
            "units": {"type": "string", "enum": ["°C", "°F"]},
            "tags": {"type": "array", "items": {"type": "string"}}}, "required": ["city"]},
        "return": {"type": "number"}}},
    {"type": "function", "function": {
        "name": "noop", "description": "", "parameters": {"type": "object", "properties": {}}}},
]

HELLO = {"role": "user", "content": "  Hello, wörld! 👋\n"}
ANSWER = {"role": "assistant", "content": "Hi.\n\nWhat do you need?"}
AGAIN = {"role": "user", "content": "Tell me <b>more</b> & \"all\"."}
SYSTEM = {"role": "system", "content": "Be brief.\n"}
PICTURES = {"role": "user", "content": [
    {"type": "image"}, {"type": "text", "text": "What is this? "}, {"type": "image", "image": "b.png"},
    {"type": "text", "text": "And that?"}]}
THINKING = {"role": "assistant", "content": "<think>\nLet me see…\n</think>\n\nIt is 4."}
CALL = {"role": "assistant", "content": None, "tool_calls": [
    {"id": "abcdefghi", "type": "function",
     "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": 2, "x": 1.5, "y": None}}}]}
CALL_TEXT = {"role": "assistant", "content": "", "tool_calls": [
    {"id": "abcdefghi", "type": "function",
     "function": {"name": "code_interpreter", "arguments": {"code": "print(1)", "lang": "py"}}}]}
CALLS = {"role": "assistant", "content": "Two.", "tool_calls": CALL["tool_calls"] + [
    {"id": "123456789", "type": "function", "function": {"name": "noop", "arguments": {}}}]}
RESULT = {"role": "tool", "content": "{\"temperature\": 21.5}", "name": "get_weather", "tool_call_id": "abcdefghi"}
RESULT2 = {"role": "tool", "content": "done", "tool_call_id": "123456789"}


def context(messages, prompt=True, **more):
    # transformers always passes tools and documents.
    return {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": prompt} | TOKENS | more


CONTEXTS = {
    "plain": context([HELLO]),
    "no prompt": context([HELLO, ANSWER], prompt=False),
    "system": context([SYSTEM, HELLO]),
    "turns": context([SYSTEM, HELLO, ANSWER, AGAIN]),
    "many turns": context([HELLO, ANSWER, AGAIN, ANSWER, HELLO]),
    "pictures": context([PICTURES], number_images=True),
    "pictures and system": context([SYSTEM, PICTURES, ANSWER, AGAIN]),
    "system refused": context([SYSTEM, PICTURES], refuse_system_with_images=True),
    "system in parts": context([{"role": "system", "content": [{"type": "text", "text": " Be kind. "}]}, HELLO]),
    "thinking": context([HELLO, THINKING, AGAIN, THINKING], prompt=False),
    "thinking off": context([HELLO, THINKING, AGAIN], enable_thinking=False),
    "tools": context([SYSTEM, HELLO], tools=TOOLS),
    "tools in system": context([HELLO], tools=TOOLS, tools_with_user=False, date_string="1 Mai 2024"),
    "tools without text": context([], tools=TOOLS),
    "call": context([HELLO, CALL, RESULT], tools=TOOLS),
    "call and answer": context([HELLO, CALL, RESULT, ANSWER, AGAIN], tools=TOOLS, prompt=False),
    "calls": context([SYSTEM, HELLO, CALLS, RESULT, RESULT2, ANSWER], tools=TOOLS),
    "builtin tools": context([HELLO, CALL_TEXT, {"role": "ipython", "content": {"output": "1\n"}}],
                             builtin_tools=["brave_search", "code_interpreter"]),
    "bad id": context([HELLO, {"role": "assistant", "tool_calls": [
        {"id": "1", "function": {"name": "noop", "arguments": {}}}]}], tools=TOOLS),
    "two users": context([HELLO, AGAIN]),
    "strange role": context([HELLO, {"role": "critic", "content": "no"}]),
    "strange part": context([{"role": "user", "content": [{"type": "audio"}]}]),
    "number": context([{"role": "user", "content": 5}]),
    "no content": context([{"role": "user"}]),
    "empty content": context([{"role": "user", "content": ""}], prompt=False),
    "no messages": context([]),
    "documents": context([HELLO], tools=TOOLS, documents=[
        {"title": "b", "text": "  Second one.\n"}, {"title": "a", "text": "First, a 文."}], controls={"length": "long"}),
    "few turns": context([HELLO, ANSWER, AGAIN, ANSWER], max_turns=2),
}

SNIPPET_CONTEXT = {
    "x": 5, "t": "text", "a": [3, 1, 2], "d": {"k": "v", "n": 1}, "e": [], "pairs": [["a", 1], ["b", 2]],
    "msgs": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None, "calls": [{"n": 1.5}]}],
    "tree": [{"v": 1, "c": [{"v": 2, "c": []}, {"v": 3, "c": [{"v": 4, "c": []}]}]}],
}

OPERANDS = ["-7", "2", "2.5", "true", "none", "'aé'", "[1, 2]", "{'a': 1}", "undef"]
OPERATORS = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "<", ">=", "in", "not in", "and", "or"]
VALUES = ["-3", "2.675", "true", "none", "''", "' Ab <é>\ncd '", "[3, 'b', 1.5, none]", "['b', 'A', 'a']", "(1, 2)", "[]",
          "{'b': 1, 'a': [2]}", "undef", "range(3)", "msgs"]
FILTERS = [
    "abs", "attr('role')", "batch(2)|list", "batch(2, 'f')|list", "capitalize", "center(7)", "count", "default('D')",
    "default('D', true)", "dictsort", "dictsort(by='value', reverse=true)", "e", "filesizeformat", "first", "float", "float(9)",
    "format(1)", "groupby('role')", "indent", "indent(2, true, true)", "indent('> ', first=true)", "int",
    "int(7, 16)", "items|list", "join('-')", "join(',', attribute='role')", "last", "length", "list", "lower",
    "map('upper')|list", "map(attribute='role')|list", "map(attribute='calls.0.n', default='q')|list", "max", "min",
    "reject('none')|list", "rejectattr('content')|list", "replace('a', 'bb')", "replace('', '-', 2)", "reverse|list",
    "round", "round(2)", "round(-1)", "round(1, 'ceil')", "select|list", "select('string')|list",
    "selectattr('role', 'equalto', 'user')|list", "slice(2)|list", "slice(2, 'x')|list", "sort", "sort(reverse=true)",
    "sort(attribute='role')", "string", "sum", "sum(start=10)", "title", "tojson", "tojson(indent=2)",
    "tojson(ensure_ascii=true, separators=(',', ':'), sort_keys=true)", "trim", "trim('3a')", "truncate(4)",
    "truncate(5, true, '…', 0)", "unique|list", "upper", "urlencode", "wordcount", "xmlattr",
]
TESTS = [
    "odd", "even", "divisibleby 3", "defined", "undefined", "none", "boolean", "true", "false", "integer", "float", "number",
    "string", "mapping", "sequence", "iterable", "callable", "lower", "upper", "escaped", "filter", "test", "in [none, 0]",
    "eq 0", "ne none", "lt 1", "le 0", "gt 1", "ge 1", "sameas none",
]
TEXTS = ["'a,bXa b'", "' ΑΣ ß ǆ '", "'x1\\n\\n²'"]
METHODS = [
    "capitalize()", "casefold()", "center(12, '*')", "count('a')", "endswith((' ', 'b'))", "expandtabs()", "find('X')",
    "find('a', 1)", "format(1)", "index('b')", "isalnum()", "isalpha()", "isascii()", "isdecimal()", "isdigit()",
    "isidentifier()", "islower()", "isnumeric()", "isprintable()", "isspace()", "istitle()", "isupper()", "join(['p', 'q'])",
    "join([1])", "ljust(12, '.') ~ '|'", "lower()", "lstrip('a ')", "partition('X')", "removeprefix('a')",
    "removesuffix(' b')", "replace('a', 'Z', 1)", "rfind('a')", "rindex('b')", "rjust(12)", "rpartition('X')", "rsplit(none, 1)",
    "rsplit('a', 1)", "rstrip('b')", "split()", "split(',')", "split('a', 1)", "split('')", "splitlines(true)",
    "startswith('a', 0, 1)", "strip()", "swapcase()", "title()", "upper()", "zfill(12)", "nosuch()", "upper(1)",
]
FORMATS = ["%5d|%-5d|%05d|%+d|%x|%#o", "%.2f|%10.3e|%g|%08.1f", "%s|%r|%5s|%-5s|%.1s"]
SPECIFICATIONS = ["", ":d", ":6", ":<6", ":^6", ":06", ":+", ":x", ":#b", ":e", ":.1f", ":.3g", ":.1%", ":,", ":*^9", "!r", ":s"]
LOOPS = ["a", "e", "t", "d", "range(2)", "a|reverse", "d.items()", "a if item > 1", "undef", "5"]
LOOP_PARTS = ["index", "index0", "revindex", "revindex0", "first", "last", "length", "depth", "previtem", "nextitem",
              "cycle('p', 'q')", "changed(item)", "nosuch"]

STATEMENTS = [
    # Literals, precedence, subscripts.
    "{{ 1_000 + 0x1F + 0b11 + 0o17 }} {{ 1e3 }} {{ 1.5E-2 }} {{ 100000000000000000.0 }} {{ 1e16 }} {{ 1e-5 }} {{ 1.0 }}",
    "{{ 'a' \"b\" 'c\\n\\t\\x41\\u00e9\\101\\q\\N{BULLET}' }}", "{{ '\\é' }}", "{{ '\\xzz' }}", "{{ 'open }}", "{{ a ? b }}",
    "{{ 1 + 2 * 3 - 4 / 2 // 1 % 3 ~ 'a' ~ 1 + 1 }}", "{{ -2 ** 2 }} {{ 2 ** 3 ** 2 }} {{ 2 ** -1 }} {{ -x|abs }}",
    "{{ 1 < 2 < 3 }} {{ 3 > 2 > 2 }} {{ not 1 in a and true }} {{ 1 not in a }} {{ 1 == 1.0 == true }}",
    "{{ x is defined and x is not none }} {{ x is divisibleby 5 }} {{ x is not in a }}", "{{ x is defined is defined }}",
    "{{ 1 if 0 }}|{{ 1 if 0 else 2 if 0 else 3 }}|{{ (1 if 0) is defined }}", "{{ (1 if 0).x }}",
    "{{ a[::-1] }} {{ a[1:] }} {{ a[-2:] }} {{ a[::2] }} {{ t[1:3] }} {{ 'aé日𝄞'[::-1] }} {{ 'aé日𝄞'[2] }} {{ (1, 2, 3)[:-1] }}",
    "{{ a.0 }} {{ pairs.0.1 }} {{ a[9] }}|{{ t[-1] }}|{{ t[9] }}|{{ d['k'] }}{{ d.k }}{{ d.nosuch }}", "{{ a[0:2, 1] }}",
    "{{ a['x':] }}", "{{ {} }}{{ () }}{{ (1,) }}{{ [1, 2,] }}{{ {1: 2, 1.0: 3, 'a': 5, none: 6, (1, 2): 7} }}", "{{ {[1]: 2} }}",
    "{{ 1, 2 }}", "{{ [,] }}", "{{ (1 }}", "{{ 1 if }}", "{{ x y }}", "{{ )1 }}", "{{ undef.x }}", "{{ undef() }}", "{{ d.nosuch.x }}",
    "{{ [undef, \"a'b\", 'a\"b', 'a\\'\"b', 'é\\u200b\\n\\x01', 1.0, true, none, {'k': ()}] }}", "{{ t.__class__ }}|{{ d['__len__'] }}",
    # What the sandbox keeps immutable.
    "{{ a.append(1) }}", "{{ a.append }}|{{ d.update is defined }}", "{{ d.pop('k') }}", "{{ a.copy() }}{{ a.index(1) }}{{ a.count(9) }}",
    # Dicts and their views.
    "{{ d.items() }} {{ d.keys() }} {{ d.values()|list }} {{ d.get('k') }} {{ d.get('z') }} {{ d.get('z', 5) }} {{ d.copy() }}",
    "{{ {'items': 1}['items'] }} {{ {'get': 2}.get('get') }} {{ d.items()|first }} {{ 'k' in d.keys() }} {{ d|length }}", "{{ d.get([1]) }}",
    # Functions.
    "{{ range(2, 8, 3)|list }} {{ range(5)[1:3] }} {{ range(3) }} {{ 4 in range(0, 9, 2) }}", "{{ range(100001) }}", "{{ range(1.5) }}",
    "{{ dict(a=1, b=2) }} {{ dict(pairs, c=3) }} {{ dict(**d) }}", "{{ dict(a=1, a=2) }}", "{{ dict(5) }}",
    "{{ namespace(a=1).a }} {{ namespace({'b': 2}, c=3) }}", "{{ raise_exception('boom: é') }}", "{{ raise_exception() }}",
    "{{ strftime_now('%d %b %Y, %H:%M:%S.%f %A %B %j %p %I %y %% %Z|%z|%e|%-d|日') }}", "{{ strftime_now('') }}",
    "{% set c = cycler('p', 'q') %}{{ c.next() }}{{ c.next() }}{{ c.current }}", "{% set j = joiner('|') %}{{ j() }}{{ j() }}",
    # Scopes.
    "{% set q, (r, s) = 1, 'ab' %}{{ q }}{{ r }}{{ s }}", "{% set q, r = [1] %}", "{% set q = 1, 2 %}{{ q }}", "{% set true = 1 %}",
    "{% set q %}a{{ x }}{% endset %}[{{ q }}]", "{% set q | upper %}abc{% endset %}{{ q }}", "{% set q %}{% set r = 1 %}{% endset %}{{ r }}",
    "{% set n = namespace(k=1) %}{% for i in a %}{% set n.k = n.k + i %}{% endfor %}{{ n.k }}{{ n }}", "{% set d.k = 1 %}",
    "{% set n = namespace() %}{% set n.me = n %}{{ n }}{{ n.nosuch }}", "{% for i in a %}{% set x = i %}{{ x }}{% endfor %}{{ x }}",
    "{% for i in a %}{{ x }}{% endfor %}{% set x = 1 %}{{ x }}", "{% if false %}{% set x = 1 %}{% endif %}{{ x }}",
    "{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% set x = 1 %}{{ m() }}", "{% for i in a %}{% if i == 1 %}{% set z = 9 %}{% endif %}{{ z }}{% endfor %}",
    "{% with q = x, x = 9 %}{{ q }}{{ x }}{% endwith %}{{ x }}", "{% for a in a %}{{ a }}{% endfor %}{{ a }}",
    # Loops.
    "{% for k, v in d.items() %}{{ k }}={{ v }}{{ ',' if not loop.last }}{% endfor %}", "{% for k, v in a %}{% endfor %}",
    "{% for n in tree recursive %}{{ n.v }}@{{ loop.depth }}{% if n.c %}({{ loop(n.c) }}){% endif %}{% endfor %}",
    "{% for i in a %}{% if i == 1 %}{% break %}{% endif %}{{ i }}{% else %}E{% endfor %}",
    "{% for i in a %}{% continue %}{% else %}E{% endfor %}", "{% break %}", "{% for i in e %}{% else %}{% break %}{% endfor %}",
    "{% for i in a %}{% set q %}{% if i == 1 %}{% continue %}{% endif %}z{% endset %}{{ q }}{{ i }}{% endfor %}",
    "{% for i in a %}{% for j in a if j != i %}{{ loop.index }}{{ j }}{% endfor %};{{ loop.index }}{% endfor %}",
    "{% set n = namespace(go=true) %}{% for i in a if n.go %}{{ i }}{% set n.go = false %}{% endfor %}", "{% for loop in a %}{% endfor %}",
    "{% set g = a|map('string') %}{{ g|list }}{{ g|list }}", "{% for i in a %}{% set loop = 1 %}{% endfor %}", "{{ loop.index }}",
    # Macros and calls.
    "{% macro m(p, q=2, r=q) %}{{ p }}{{ q }}{{ r }};{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(q=5, p=4) }}{{ m() }}", "{% macro m(p) %}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(p) %}{% endmacro %}{{ m(z=1) }}", "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, k=3) }}{{ m(*a, **d) }}",
    "{% macro m(n) %}{{ n }}{% if n %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(3) }}{{ m }}{{ m.name }}{{ m.arguments }}",
    "{% macro m(p) %}[{{ caller(p * 2) }}]{% endmacro %}{% for i in a %}{% call(v) m(i) %}{{ v }}{{ i }}{{ loop.index }}{% endcall %}{% endfor %}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}", "{% macro m() %}x{% endmacro %}{% call m() %}{% endcall %}", "{{ m() }}{% macro m() %}z{% endmacro %}",
    "{% macro m(p=1, q) %}{% endmacro %}", "{% macro f(v) %}{% macro m() %}<{{ v }}>{% endmacro %}{{ m() }}{% endmacro %}{{ f(3) }}{{ f(4) }}",
    # Other tags.
    "{% filter upper|replace('A', 'b') %}a{{ t }}{% endfilter %}", "{% generation %}a{% set q = 1 %}{% endgeneration %}{{ q }}",
    "{% for i in a %}{%- generation -%} {{ loop.index }} {%- endgeneration -%}{% endfor %}", "{% print x, t %}",
    "{% if x: %}p{% elif t %}q{% endif %}", "{% if e %}p{% elif e %}q{% else %}r{% endif %}", "{% if x %}", "{% endif %}", "{% foo %}",
    "{% else %}", "{% if x %}{% endfor %}", "{% if false %}{{ x|nosuch }}{% endif %}ok", "{{ x|nosuch }}", "{{ x is nosuch }}",
    # Markup.
    "{{ ('<'|e) + '<' }}{{ '<' + ('>'|e) }}{{ ('<'|e) ~ '<' }}{{ ('%s'|safe) % '<' }}{{ ('<'|e).join(['<']) }}{{ ['<'|e] }}{{ '<'|e|e }}",
    "{{ ('{}'|safe).format('<') }}{{ ('a<'|e).replace('a', '<') }}{{ ('<'|safe)|upper + '<' }}{{ ('<'|e)|length }}",
    # JSON.
    "{{ {'é<>&\\'\"\\\\/\\n\\x00\\x7f𝄞': [1, 2.0, 1e20, none, true, {}, [], (1,)]}|tojson }}", "{{ 'é𝄞\\x7f'|tojson(ensure_ascii=true) }}",
    "{{ {1: 2, none: 3, true: 4, 1.5: 6}|tojson }}", "{{ {(1, 2): 3}|tojson }}", "{{ undef|tojson }}", "{{ d.items()|tojson }}",
    # Numbers.
    "{{ '12'|int }} {{ '0x1f'|int(0, 16) }} {{ '4.7'|int }} {{ ' 1_0 '|int }} {{ '٣'|int }} {{ 'z'|int(9) }} {{ 'inf'|int(4) }} {{ '010'|int(7, 0) }}",
    "{{ '1.5'|float }} {{ '-inf'|float }} {{ 'x'|float(none) }} {{ '.5'|float }} {{ '1e400'|float }} {{ ''|float }} {{ '+-5'|float }}",
    "{{ -7 // 2 }} {{ -7 % 3 }} {{ 7.5 // -2 }} {{ -7.5 % 2 }} {{ 4 / 2 }} {{ 2 ** 0.5 }} {{ 0 ** 0 }} {{ -0.0 }} {{ 9007199254740993 == 9007199254740992.0 }}",
    "{{ 1 // 0 }}", "{{ 1.0 % 0 }}", "{{ 0 ** -1 }}", "{{ '%d' % '5' }}", "{{ '%d %d' % 1 }}", "{{ '%s' % (1, 2) }}", "{{ '%(k)s %(n)03d' % d }}", "{{ '%z' % 1 }}",
    # Line ends.
    "a\r\nb\rc\n", "a\n\n", "{{ 'a\r\nb' }}", "{#", "{# a", "{% raw %}", "{% raw %}{{ x }}", "{#}", "{#}#}", "{{}}", "{% %}", "{{ {'a': {'b': 1}}}}",
]


def white_space():
    """Tags, prints, comments and raw blocks with every sign at their ends."""
    begins, ends = ["", "-", "+"], ["", "-", "+"]
    for begin, end in itertools.product(begins, ends):
        for before, after in [("a\n  ", "\n\n b"), ("  ", " b"), ("a ", "\n")]:
            yield f"{before}{{%{begin} if true {end}%}}{after}{{% endif %}}z"
            yield f"{before}{{#{begin} c {end}#}}{after}"
            yield f"{before}{{{{{begin} x {end}}}}}{after}"
        yield f"a\n  {{%{begin} raw %}} {{{{ x }}}}\n  {{%{end} endraw %}}\n  b"
        yield f"a\n  {{% raw {end if end != '+' else ''}%}}\n {{% if %}}\n {{% endraw {begin}%}}\n  b"


def snippets():
    for left, right, operator in itertools.product(OPERANDS, OPERANDS, OPERATORS):
        if (left, operator, right) != ("-7", "**", "2.5"):  # a complex number
            yield f"{{{{ {left} {operator} {right} }}}}"
    for value, name in itertools.product(VALUES, FILTERS):
        yield f"{{{{ ({value})|{name} }}}}"
    for value, name in itertools.product(VALUES, TESTS):
        yield f"{{{{ ({value}) is {name} }}}}"
    for text, method in itertools.product(TEXTS, METHODS):
        yield f"{{{{ ({text}).{method} }}}}"
    for text, format in itertools.product(["5", "-255", "2.5", "true", "'aé'", "none"], FORMATS):
        yield f"{{{{ '{format}' % ({', '.join([text] * format.count('%'))}) }}}}"
    for text, specification in itertools.product(["5", "-255", "2.5", "'aé'"], SPECIFICATIONS):
        yield f"{{{{ '{{{specification}}}'.format({text}) }}}}"
    for items, part in itertools.product(LOOPS, LOOP_PARTS):
        yield f"{{% for item in {items} %}}{{{{ loop.{part} }}}},{{% else %}}E{{% endfor %}}"
    yield from white_space()
    yield from STATEMENTS
