"""JSON of strangers, parsed in processes whose recursion limit a library has raised."""

import json
import random
import sys

import pytest

from blueprint.foreign_json import parse_json

HOSTILE = [
    "[" * 200_000,
    '{"a":' * 200_000,
    '["]",' * 200_000,
    '["\\"]",' * 200_000,
    "[" * 100_000 + "]" * 100_000,
    "[{}," * 100_000,
]


@pytest.fixture
def _raised_limit():
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000_000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.usefixtures("_raised_limit")
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:6])
@pytest.mark.parametrize("form", [str, str.encode])
def test_deep_nesting_is_refused(form, text):
    """However the brackets are dressed up, the text is refused, and the process lives."""
    with pytest.raises(ValueError, match="recursion limit|expected value|EOF|escape"):
        parse_json(form(text))


def test_levels_that_a_message_may_need_are_parsed():
    """A hundred levels are no attack; three hundred are."""
    assert parse_json("[" * 100 + "]" * 100)
    with pytest.raises(ValueError, match="recursion limit"):
        parse_json("[" * 300 + "]" * 300)


def test_brackets_in_strings_and_side_by_side_are_no_levels():
    """A program sent as a string, and long flat lists, are parsed."""
    value = {"source": "[" * 10_000 + '\\"{', "logs": [{"topics": []}] * 5_000}
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


def test_what_is_parsed_is_what_the_standard_library_parses():
    """Random texts of JSON's characters give the same value, or an error in both."""
    choose = random.Random(5)
    for _ in range(3_000):
        text = "".join(choose.choices('[]{}",:\\ 1a', k=choose.randint(1, 12)))
        try:
            expected = json.loads(text)
        except ValueError:
            with pytest.raises(ValueError, match="."):
                parse_json(text)
        else:
            assert parse_json(text) == expected


@pytest.mark.parametrize("content", [b"\xff", "[1]".encode("utf-16"), b"", "\ufeff1", "9" * 5_000])
def test_what_is_no_utf8_json_is_a_value_error(content):
    """Other encodings and numbers of thousands of digits are errors as well."""
    with pytest.raises(ValueError, match="."):
        parse_json(content)
