"""URL, REQUEST_HEADER and PARAMETER as templates: what they see, and that none runs or grows without end."""

import json
import time
import tracemalloc
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ita_ag_oase import clock
from ita_ag_oase.errors import Reason, SettingInvalid, SourceUnreadable
from ita_ag_oase.model import Cursor
from ita_ag_oase.sources.sandbox import MAX_CHARACTERS, MAX_SECONDS
from ita_ag_oase.sources.templates import Template, TemplateNames

LAST = 1_700_000_000
TOKYO = ZoneInfo("Asia/Tokyo")


def _names(event: object = None, *, row: Mapping[str, Any] | None = None, last: int = LAST) -> TemplateNames:
    return TemplateNames(
        Cursor(last, None if event is None else json.dumps(event).encode()),
        row or {"EVENT_COLLECTION_SETTINGS_NAME": "n1", "AUTH_TOKEN": "token", "NOTE": None},
        last_fetched=clock.local(last, TOKYO),
        current=clock.local(last + 5.25, TOKYO),
    )


def _rendered(text: str, event: object = None) -> str:
    return Template(text, column="PARAMETER").render(_names(event))


def _failure(text: str, event: object = None) -> str:
    """Return why a template fails: the text between the words that name the column."""
    with pytest.raises(SourceUnreadable) as caught:
        Template(text, column="REQUEST_HEADER").render(_names(event))
    message = str(caught.value)
    assert caught.value.reason is Reason.TEMPLATE
    assert message.startswith("the template in REQUEST_HEADER fails (")
    return message.removeprefix("the template in REQUEST_HEADER fails (").removesuffix(")")


TOO_MUCH = f"it makes more than {MAX_CHARACTERS} characters"
TOO_LONG = f"it runs for more than {MAX_SECONDS:g} s"
NO_END = "it calls itself without end, or needs too much memory"


class TestNames:
    """The variables of protocol section 2.4."""

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("EXASTRO_LAST_FETCHED_TIMESTAMP", "1700000000"),
            ("EXASTRO_LAST_FETCHED_TIME", "2023-11-15 07:13:20"),
            ("EXASTRO_LAST_FETCHED_YY_MM_DD", "2023/11/15 07:13:20"),
            ("EXASTRO_LAST_FETCHED_DD_MM_YY", "15/11/23 07:13:20"),
            ("EXASTRO_CURRENT_TIME", "2023-11-15 07:13:25.250000"),
            ("EXASTRO_LAST_FETCHED_EVENT_IS_EXIST", "False"),
            ("EXASTRO_LAST_FETCHED_EVENT", "None"),
            ("EXASTRO_EVENT_COLLECTION_SETTING.EVENT_COLLECTION_SETTINGS_NAME", "n1"),
            ("EXASTRO_EVENT_COLLECTION_SETTING.AUTH_TOKEN", "token"),
            ("EXASTRO_EVENT_COLLECTION_SETTING.NOTE", "None"),
            ("EXASTRO_EVENT_COLLECTION_SETTING.LATER_COLUMN", ""),
        ],
    )
    def test_a_name_stands_for_its_value(self, name: str, text: str) -> None:
        assert _rendered(f"{{{{ {name} }}}}") == text

    def test_names_have_the_types_that_templates_calculate_with(self) -> None:
        names = _names({"eventid": "7"}).as_mapping(with_event=True)
        assert names == {
            "EXASTRO_LAST_FETCHED_TIMESTAMP": LAST,
            "EXASTRO_LAST_FETCHED_TIME": datetime(2023, 11, 15, 7, 13, 20),  # noqa: DTZ001 - without tzinfo, as the protocol has it
            "EXASTRO_LAST_FETCHED_YY_MM_DD": "2023/11/15 07:13:20",
            "EXASTRO_LAST_FETCHED_DD_MM_YY": "15/11/23 07:13:20",
            "EXASTRO_CURRENT_TIME": datetime(2023, 11, 15, 7, 13, 25, 250_000),  # noqa: DTZ001
            "EXASTRO_LAST_FETCHED_EVENT_IS_EXIST": True,
            "EXASTRO_LAST_FETCHED_EVENT": {"eventid": "7"},
            "EXASTRO_EVENT_COLLECTION_SETTING": {
                "EVENT_COLLECTION_SETTINGS_NAME": "n1",
                "AUTH_TOKEN": "token",
                "NOTE": None,
            },
        }
        assert type(names["EXASTRO_LAST_FETCHED_TIMESTAMP"]) is int

    def test_the_last_event_is_seen_with_its_labels(self) -> None:
        event = {"host": {"name": "監視"}, "_exastro_oase_event_id": "7", "_exastro_fetched_time": LAST}
        text = "{{ EXASTRO_LAST_FETCHED_EVENT.host.name }}/{{ EXASTRO_LAST_FETCHED_EVENT._exastro_oase_event_id }}"
        assert _rendered(text, event) == "監視/7"

    @pytest.mark.parametrize(
        "event", [b'{"n": 1e999}', b'{"n": 123456789012345678901234567890}', b'{"n": "\\ud83d\\ude00"}']
    )
    def test_any_event_that_was_sent_can_be_seen(self, event: bytes) -> None:
        names = TemplateNames(
            Cursor(LAST, event), {}, last_fetched=clock.local(LAST, TOKYO), current=clock.local(LAST, TOKYO)
        )
        rendered = Template("{{ EXASTRO_LAST_FETCHED_EVENT.n }}", column="URL").render(names)
        assert rendered == str(json.loads(event)["n"])

    @pytest.mark.parametrize("event", [b'{"n', b'{"n": "\xff"}'])
    def test_a_last_event_that_the_disk_has_changed_does_not_end_polling(self, event: bytes) -> None:
        names = TemplateNames(
            Cursor(LAST, event), {}, last_fetched=clock.local(LAST, TOKYO), current=clock.local(LAST, TOKYO)
        )
        assert Template("{{ EXASTRO_LAST_FETCHED_EVENT_IS_EXIST }}", column="URL").render(names) == "False"

    def test_the_row_cannot_be_changed(self) -> None:
        row = {"NOTE": "a"}
        template = Template('{{ EXASTRO_EVENT_COLLECTION_SETTING.update({"NOTE": "b"}) }}', column="URL")
        with pytest.raises(SourceUnreadable, match="the sandbox does not give"):
            template.render(_names(row=row))
        assert row == {"NOTE": "a"}


ZABBIX = (
    '{"jsonrpc": "2.0", "params": {"output": "extend", {% if EXASTRO_LAST_FETCHED_EVENT_IS_EXIST %}'
    '"eventid_from": "{{ EXASTRO_LAST_FETCHED_EVENT.eventid|int + 1 }}"{% else %}'
    '"time_from": "{{ EXASTRO_LAST_FETCHED_TIMESTAMP }}"{% endif %}}, '
    '"auth": "{{ EXASTRO_EVENT_COLLECTION_SETTING.AUTH_TOKEN }}"}'
)


class TestUse:
    """What templates of users look like."""

    @pytest.mark.parametrize(
        ("event", "rendered"),
        [
            pytest.param(None, {"output": "extend", "time_from": "1700000000"}, id="no event yet"),
            pytest.param({"eventid": "41"}, {"output": "extend", "eventid_from": "42"}, id="text"),
            pytest.param({"eventid": 41}, {"output": "extend", "eventid_from": "42"}, id="number"),
            pytest.param({"eventid": "x"}, {"output": "extend", "eventid_from": "1"}, id="no number"),
        ],
    )
    def test_the_documented_template_asks_from_the_last_event_on(self, event: object, rendered: object) -> None:
        assert json.loads(_rendered(ZABBIX, event)) == {"jsonrpc": "2.0", "params": rendered, "auth": "token"}

    @pytest.mark.parametrize(
        ("text", "rendered"),
        [
            pytest.param("http://h/a?b={c}&d=%41#{e", "http://h/a?b={c}&d=%41#{e", id="no template at all"),
            pytest.param("a\r\nb\n", "a\r\nb\n", id="line ends stay"),
            pytest.param("{{ 'x' }}\n", "x\n", id="final line end stays"),
            pytest.param("a{# nothing #}b", "ab", id="comment"),
            pytest.param("{{ EXASTRO_LAST_FETCHED_YY_MM_DD|urlencode }}", "2023/11/15%2007%3A13%3A20", id="urlencode"),
            pytest.param("{{ EXASTRO_LAST_FETCHED_TIMESTAMP * 1000 }}", "1700000000000", id="milliseconds"),
            pytest.param("{{ EXASTRO_LAST_FETCHED_TIMESTAMP - 60 }}", "1699999940", id="a minute earlier"),
            pytest.param("{{ EXASTRO_LAST_FETCHED_TIME.isoformat() }}+09:00", "2023-11-15T07:13:20+09:00", id="ISO"),
            pytest.param("{{ EXASTRO_CURRENT_TIME.strftime('%Y%m%d') }}", "20231115", id="strftime"),
            pytest.param(
                "{{ (EXASTRO_CURRENT_TIME - EXASTRO_LAST_FETCHED_TIME).total_seconds() }}", "5.25", id="difference"
            ),
            pytest.param("{{ '%s-%05d'|format('a', EXASTRO_LAST_FETCHED_TIMESTAMP) }}", "a-1700000000", id="format"),
            pytest.param("{{ '%08.3f' % 1.5 }}", "0001.500", id="%"),
            pytest.param("{{ '%(t)d' % {'t': EXASTRO_LAST_FETCHED_TIMESTAMP} }}", "1700000000", id="% with names"),
            pytest.param(
                "{{ '{}/{:>5}'.format(EXASTRO_LAST_FETCHED_TIMESTAMP, 1) }}", "1700000000/    1", id="str.format"
            ),
            pytest.param("{{ '{:%Y}'.format(EXASTRO_CURRENT_TIME) }}", "2023", id="str.format of a time"),
            pytest.param("{{ '{t}'.format_map({'t': 1700000000}) }}", "1700000000", id="str.format_map"),
            pytest.param("{{ '{{\"n\": {}}}'.format(1) }}", '{"n": 1}', id="str.format of JSON"),
            pytest.param("{{ {'a': [1, none, 'é']}|tojson }}", '{"a": [1, null, "\\u00e9"]}', id="tojson"),
            pytest.param("{{ {'a': 1}|tojson(indent=2) }}", '{\n  "a": 1\n}', id="tojson with indent"),
            pytest.param("{{ 'a' ~ 1 ~ none ~ missing }}", "a1None", id="joined"),
            pytest.param(
                "{{ 'a' + 'b' }}{{ [1] + [2] }}{{ 2 ** 10 }}{{ 'ab' * 2 }}", "ab[1, 2]1024abab", id="operators"
            ),
            pytest.param("{% set a, b = 1, (2, 3) %}{{ a }}{{ b }}", "1(2, 3)", id="several at once"),
            pytest.param(
                "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}", "a=1;b=2;", id="loop"
            ),
            pytest.param("{% for i in [] %}x{% else %}none{% endfor %}", "none", id="loop over nothing"),
            pytest.param(
                "{% for i in range(3) if i != 1 %}{{ loop.index }}{{ loop.cycle('a', 'b') }}{% endfor %}",
                "1a2b",
                id="loop with condition",
            ),
            pytest.param("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(1) }}{{ m(2) }}", "<1><2>", id="macro"),
            pytest.param(
                "{% set ns = namespace(n=0) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
                "3",
                id="namespace",
            ),
            pytest.param(
                "{% filter upper %}a{{ 'b' }}{% endfilter %}{% set x | trim %} c {% endset %}{{ x }}",
                "ABc",
                id="filter blocks",
            ),
            pytest.param(
                "{{ ['b', 'a']|sort|join('-') }}{{ 'a,b'.split(',')|map('upper')|list }}", "a-b['A', 'B']", id="filters"
            ),
            pytest.param(
                "{{ [{'k': 1}, {'k': 2}]|map(attribute='k')|sum }}{{ [[1], [2]]|sum(start=[]) }}", "3[1, 2]", id="sums"
            ),
            pytest.param(
                "{{ [1, 2, 3]|select('odd')|list }}{{ 1 is defined }}{{ 'a' in 'abc' }}", "[1, 3]TrueTrue", id="tests"
            ),
            pytest.param(
                "{{ [1, 2, 3]|batch(2, 0)|list }}{{ 'a'|center(3) }}|", "[[1, 2], [3, 0]] a |", id="batch, center"
            ),
            pytest.param("{{ missing|default(EXASTRO_LAST_FETCHED_TIMESTAMP) }}", "1700000000", id="default"),
            pytest.param(
                "{{ ''.join(['a', 'b']) }}{{ 'a-b'.replace('-', '') }}{{ 'ab'[::-1] }}", "ababba", id="methods"
            ),
            pytest.param("{{ dict(a=1).a }}{{ '7'|int + 1 }}{{ 'x'|length }}{{ 1.25|round(1) }}", "1811.2", id="calls"),
            pytest.param("{{ missing }}{% if missing %}x{% endif %}", "", id="a name that is none is empty"),
        ],
    )
    def test_an_ordinary_template_is_rendered(self, text: str, rendered: str) -> None:
        assert _rendered(text) == rendered

    def test_a_long_answer_of_events_can_be_walked_through(self) -> None:
        event = {"items": [{"id": number, "name": f"item {number}"} for number in range(2_000)]}
        text = (
            "{% for item in EXASTRO_LAST_FETCHED_EVENT['items'] %}"
            "{{ item.id|string|length }}{{ item.name|upper|replace('I', 'i') }}{% endfor %}"
        )
        assert _rendered(text, event) == "".join(f"{len(str(n))}iTEM {n}" for n in range(2_000))

    def test_many_parts_can_be_joined(self) -> None:
        assert _rendered("{{ " + " ~ ".join(["1"] * 500) + " }}") == "1" * 500

    @pytest.mark.parametrize("length", [MAX_CHARACTERS, MAX_CHARACTERS + 1])
    def test_the_bound_of_a_text_is_exact(self, length: int) -> None:
        text = "{{ 'x' * 524288 }}{{ 'x' * " + str(length - 524_288) + " }}"
        if length == MAX_CHARACTERS:
            assert len(_rendered(text)) == length
        else:
            assert _failure(text) == TOO_MUCH

    @pytest.mark.parametrize(
        ("text", "long"),
        [
            ("http://h", False),
            ("{{ EXASTRO_LAST_FETCHED_TIMESTAMP }}", False),
            (ZABBIX, False),
            ("{% for i in x %}{% endfor %}", True),
            ("{% macro m() %}{% endmacro %}", True),
            ("{{ range(9)|list }}", True),
            ("{{ 'x' * 9 }}", True),
        ],
    )
    def test_what_could_take_long_says_so(self, text: str, long: bool) -> None:
        assert Template(text, column="URL").may_take_long is long


NO_LOADER = "TypeError: no loader for this environment specified"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{{ missing.member }}", "UndefinedError: 'missing' is undefined"),
        ("{{ missing() }}", "UndefinedError: 'missing' is undefined"),
        ("{{ missing|int + 1 }}", "UndefinedError: 'missing' is undefined"),
        ("{{ EXASTRO_LAST_FETCHED_EVENT.a.b }}", "UndefinedError: 'None' has no attribute 'a'"),
        ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
        ("{{ 1 + 'a' }}", "TypeError: unsupported operand type(s) for +: 'int' and 'str'"),
        ("{{ '%d' % 'a' }}", "TypeError: %d format: a real number is required, not str"),
        ("{{ [1].index(2) }}", "ValueError: 2 is not in list"),
        ("{{ 1|sum }}", "TypeError: 'int' object is not iterable"),
        ("{{ {}['a'].b }}", "UndefinedError: 'dict object' has no attribute 'a'"),
        ("{{ '{x}'.format(y=1) }}", "KeyError: 'x'"),
        ("{% include 'x' %}", NO_LOADER),
        ("{% import 'x' as y %}", NO_LOADER),
        ("{% extends 'x' %}", NO_LOADER),
    ],
)
def test_a_template_that_fails_tells_why_and_never_sends_its_raw_text(text: str, why: str) -> None:
    assert _failure(text) == why


def test_the_words_of_a_failure_are_cut() -> None:
    assert len(_failure("{{ [1].index('" + "x" * 5_000 + "') }}")) == 200


@pytest.mark.parametrize(
    "text",
    [
        "{{",
        "{{ 1 if }}",
        "{% for %}",
        "{% if x %}",
        "{% endif %}",
        "{{ x|no_such_filter }}",
        "{{ x is no_such_test }}",
        "{% do x %}",
        "{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}",
        "{{ " + "-" * 5_000 + "1 }}",
        "{{ " + "[" * 300 + "]" * 300 + " }}",
        "{{ " + "+".join(["1"] * 500) + " }}",
        "{% for a in b %}" * 30 + "{% endfor %}" * 30,
        "{% if a %}" * 150 + "{% endif %}" * 150,
        "{{ " + "9" * 5_000 + " }}",
    ],
    ids=lambda text: text[:24],
)
def test_what_is_no_template_makes_the_setting_invalid(text: str) -> None:
    with pytest.raises(SettingInvalid, match=r"^URL is no template \(.*\): mend it in Exastro$") as caught:
        Template(text, column="URL")
    assert caught.value.reason is Reason.TEMPLATE


class TestSandbox:
    """A template cannot get at Python."""

    @pytest.mark.parametrize(
        "text",
        [
            "{{ ''.__class__.__mro__ }}",
            "{{ ''['__class__'].__mro__ }}",
            "{{ (''|attr('__class__')).__mro__ }}",
            "{{ ().__class__.__base__.__subclasses__() }}",
            "{{ self.__init__.__globals__ }}",
            "{{ cycler.__init__.__globals__ }}",
            "{{ namespace.__init__.__globals__.os }}",
            "{{ range.__self__ }}{{ range.__globals__.x }}",
            "{{ EXASTRO_CURRENT_TIME.__reduce__() }}",
            "{{ ''.format.__func__.x }}",
            "{% macro m() %}{% endmacro %}{{ m.__call__.__globals__ }}",
            "{{ EXASTRO_EVENT_COLLECTION_SETTING.clear() }}",
            "{{ [1].append(2) }}",
            "{{ {'a': 1}.pop('a') }}",
            "{% set f = ''.__class__ %}{{ f() }}",
        ],
    )
    def test_what_is_private_is_not_given(self, text: str) -> None:
        why = _failure(text)
        assert why.startswith(("it asks for what the sandbox does not give: ", "UndefinedError: "))

    @pytest.mark.parametrize(
        "text",
        [
            "{{ '{0.__class__}'.format(1) }}",
            "{{ '{x.__class__.__mro__}'.format_map({'x': 1}) }}",
            "{{ [1]|map(attribute='__class__')|join }}",
            "{{ [1]|map('attr', '__class__')|join }}",
            "{{ ''.__class__ }}",
            "{{ 1|attr('__class__') }}",
            "{{ [''.format]|map('string')|join }}",
        ],
    )
    def test_no_way_round_shows_what_is_private(self, text: str) -> None:
        try:
            rendered = _rendered(text)
        except SourceUnreadable:
            return
        assert "class" not in rendered

    def test_the_time_of_nested_loops_cannot_be_lengthened(self) -> None:
        loops = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
        assert _failure("{% set _deadline = cycler(1).next %}{% set _budget = 1 %}" + loops) == TOO_LONG


LOOPS = "{% for i in range(99) %}"
END = "{% endfor %}"

NAMESPACES = (
    "{% set ns = namespace(x=1) %}" + LOOPS + "{% set n = namespace() %}{% set n.a = ns.x %}{% set n.b = ns.x %}"
    "{% set ns.x = n %}" + END
)

# Each of these makes a little more at every turn, or nothing at all.
STEP_BY_STEP = {
    "nested loops with conditions": (
        "{% for i in range(99999) %}{% for j in range(99999) if j < 0 %}{% endfor %}{% endfor %}"
    ),
    "loop in a macro": "{% macro m() %}{% for i in range(999) %}{{ m() }}{% endfor %}{% endmacro %}{{ m() }}",
    "macro calling itself": "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "macro with two branches": (
        "{% macro m(n) %}{% if n %}{% set a = m(n - 1) %}{% set a = m(n - 1) %}{% endif %}{% endmacro %}{{ m(60) }}"
    ),
    "recursive loop": "{% for i in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
    "filters in filters": "{{ range(99999)|map('pprint')|map('upper')|map('lower')|map('upper')|list|length }}",
    "filter with a test": "{% set all = range(9999)|list %}{{ range(99999)|select('in', all)|list|length }}",
    "text": "{% set ns = namespace(x='ab') %}" + LOOPS + "{% set ns.x = ns.x + ns.x %}" + END,
    "text joined": "{% set ns = namespace(x='ab') %}" + LOOPS + "{% set ns.x = ns.x ~ ns.x %}" + END,
    "text of a block": (
        "{% set ns = namespace(x='ab') %}" + LOOPS + "{% set y %}{{ ns.x * 2 }}{% endset %}{% set ns.x = y %}" + END
    ),
    "list": "{% set ns = namespace(x=[1]) %}" + LOOPS + "{% set ns.x = ns.x + ns.x %}" + END,
    "list in list": "{% set ns = namespace(x=1) %}" + LOOPS + "{% set ns.x = [ns.x, ns.x] %}" + END,
    "tuple in tuple": "{% set ns = namespace(x=1) %}" + LOOPS + "{% set ns.x = (ns.x, ns.x) %}" + END,
    "mapping in mapping": "{% set ns = namespace(x=1) %}" + LOOPS + "{% set ns.x = {'a': ns.x, 'b': ns.x} %}" + END,
    "namespace in namespace": (
        "{% set ns = namespace(x=1) %}" + LOOPS + "{% set ns.x = namespace(a=ns.x, b=ns.x) %}" + END
    ),
    "namespace in namespace, filled afterwards": NAMESPACES + "{{ ns.x }}",
    "namespace in namespace, joined": NAMESPACES + "{{ 'a' ~ ns.x }}",
    "namespace in namespace, formatted": NAMESPACES + "{{ '%s' % ns.x }}",
    "namespace in namespace, filtered": NAMESPACES + "{{ ns.x|string|length }}",
    "lists compared": (
        "{% set a = namespace(x=1) %}{% set b = namespace(x=1) %}"
        + LOOPS
        + "{% set a.x = [a.x, a.x] %}{% set b.x = [b.x, b.x] %}"
        + END
        + "{{ a.x == b.x }}"
    ),
    "numbers squared": "{% set ns = namespace(x=3) %}"
    + LOOPS
    + "{% set ns.x = ns.x * ns.x %}"
    + END
    + "{{ ns.x % 7 }}",
    "long texts one behind the other": "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
}


@pytest.mark.parametrize("name", STEP_BY_STEP)
def test_no_template_runs_or_grows_without_end(name: str) -> None:
    begin = time.monotonic()
    assert _failure(STEP_BY_STEP[name]) in (
        TOO_MUCH,
        TOO_LONG,
        NO_END if "macro" in name or "recursive" in name else "",
    )
    # A step may go beyond the time, but it is a small one; much more only on a machine with other work.
    assert time.monotonic() - begin < 60 * MAX_SECONDS


RANGE_TOO_BIG = "Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000)."
NUMBERS = "its numbers grow too large"

# Each of these would make very much in one step, which nothing could stop.
AT_ONCE = {
    "long texts kept": ("{{ range(99999)|map('center', 100000)|list|length }}", TOO_MUCH),
    "power": ("{{ 10 ** 10 ** 10 ** 10 }}", NUMBERS),
    "power of powers": ("{{ (2 ** 64) ** 65 }}", NUMBERS),
    "text times number": ("{{ 'x' * 2000000 }}", TOO_MUCH),
    "number times text": ("{{ 99999999999999999999 * 'x' }}", TOO_MUCH),
    "list times number": ("{{ [[1] * 1000] * 1000000 }}", TOO_MUCH),
    "list of long texts times number": ("{{ ['x' * 1000000] * 1000 }}", TOO_MUCH),
    "format filter": ("{{ '%999999999d'|format(1) }}", TOO_MUCH),
    "format with a name": ("{{ '%(a)999999999d' % {'a': 1} }}", TOO_MUCH),
    "format filter with a name": ("{{ '%(a)999999999d'|format(a=1) }}", TOO_MUCH),
    "format with flags": ("{{ '%-+ #0999999999d' % 1 }}", TOO_MUCH),
    "format with precision": ("{{ '%.999999999f' % 1 }}", TOO_MUCH),
    "format with width and precision": ("{{ '%5.999999999f' % 1 }}", TOO_MUCH),
    "format with a width from outside": ("{{ '%*d' % (999999999, 1) }}", TOO_MUCH),
    "format of bytes": ("{{ '%999999999d'.encode() % 1 }}", TOO_MUCH),
    "format, many times": ("{{ ('%(a)s' * 20000) % {'a': 'x' * 100000} }}", TOO_MUCH),
    "str.format": ("{{ '{:999999999}'.format(1) }}", TOO_MUCH),
    "str.format with filler": ("{{ '{:x>999999999}'.format(1) }}", TOO_MUCH),
    "str.format with precision": ("{{ '{:.999999999f}'.format(1) }}", TOO_MUCH),
    "str.format with a width from outside": ("{{ '{:{w}}'.format('x', w=999999999) }}", TOO_MUCH),
    "str.format with a conversion": ("{{ '{!r:>999999999}'.format(1) }}", TOO_MUCH),
    "str.format_map": ("{{ '{a:999999999}'.format_map({'a': 1}) }}", TOO_MUCH),
    "str.format, many times": ("{{ ('{0}' * 20000).format('x' * 100000) }}", TOO_MUCH),
    "str.format, many widths": ("{{ ('{0:9999}' * 20000).format(1) }}", TOO_MUCH),
    "center": ("{{ 'x'|center(999999999) }}", TOO_MUCH),
    "str.ljust": ("{{ 'x'.ljust(999999999) }}", TOO_MUCH),
    "str.zfill by name": ("{{ 'x'['zfill'](999999999) }}", TOO_MUCH),
    "str.expandtabs": ("{{ ('\\t' * 100000).expandtabs(100000) }}", TOO_MUCH),
    "str.translate": ("{{ ('a' * 100000).translate({97: 'x' * 100000}) }}", TOO_MUCH),
    "str.replace": ("{{ ('a' * 100000).replace('a', 'x' * 100000) }}", TOO_MUCH),
    "str.join": ("{{ ('x' * 1000000).join(range(99999)|map('string')) }}", TOO_MUCH),
    "bytes.replace": ("{{ ('a' * 100000).encode().replace('a'.encode(), ('x' * 100000).encode()) }}", TOO_MUCH),
    "int.to_bytes": ("{{ (1).to_bytes(999999999, 'big') }}", TOO_MUCH),
    "replace": ("{{ ('a' * 100000)|replace('a', 'x' * 100000) }}", TOO_MUCH),
    "join": ("{{ range(99999)|join('x' * 1000000) }}", TOO_MUCH),
    "join of what is walked through": ("{{ range(99999)|map('string')|join('x' * 1000000) }}", TOO_MUCH),
    "indent by a number": ("{{ ('a\\n' * 100000)|indent(100000) }}", TOO_MUCH),
    "indent by a text": ("{{ ('a\\n' * 100000)|indent('x' * 100000) }}", TOO_MUCH),
    "wordwrap": ("{{ ('a ' * 100000)|wordwrap(1, wrapstring='x' * 100000) }}", TOO_MUCH),
    "tojson with indent": ("{{ (range(9999)|list)|tojson(indent=100000) }}", TOO_MUCH),
    "batch": ("{{ [1]|batch(999999999, 0)|list|length }}", TOO_MUCH),
    "batch with long filler": ("{{ [1]|batch(100000, 'x' * 100000)|map('string')|join|length }}", TOO_MUCH),
    "slice": ("{{ [1]|slice(999999999)|list|length }}", TOO_MUCH),
    "urlize": ("{{ ('http://a.b ' * 10000)|urlize(rel='x' * 10000) }}", TOO_MUCH),
    "range": ("{{ range(999999999)|list }}", f"OverflowError: {RANGE_TOO_BIG}"),
    "filler text": ("{{ lipsum(n=999999) }}", "UndefinedError: 'lipsum' is undefined"),
}


@pytest.mark.parametrize("name", AT_ONCE)
def test_no_step_of_a_template_makes_very_much(name: str) -> None:
    text, why = AT_ONCE[name]
    tracemalloc.start()
    try:
        assert _failure(text) in (why, TOO_LONG)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 48 << 20
