"""Languages by name and alias."""

import pytest

from sandbox.errors import RequestError
from sandbox.languages import LANGUAGES, find


def test_eight_languages_are_there() -> None:
    """The owner's eight languages are all registered."""
    expected = {"python", "javascript", "typescript", "java", "go", "cpp", "php", "swift"}
    assert expected <= set(LANGUAGES)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("py", "python"),
        ("JS", "javascript"),
        ("ts", "typescript"),
        ("C++", "cpp"),
        ("golang", "go"),
        (" Java ", "java"),
    ],
)
def test_alias_finds_its_language(name: str, expected: str) -> None:
    """Aliases, upper case and surrounding blanks find the language."""
    assert expected == find(name).name


def test_no_name_belongs_to_two_languages() -> None:
    """Names and aliases are unique."""
    names = [name for language in LANGUAGES.values() for name in (language.name, *language.aliases)]
    assert len(names) == len(set(names))


def test_mistyped_name_is_refused_with_the_closest() -> None:
    """An unknown language is refused with the list and the closest match."""
    with pytest.raises(RequestError, match="did you mean 'python'"):
        find("pyhton")


def test_unknown_name_is_cut_in_the_message() -> None:
    """A huge name does not make a huge message."""
    with pytest.raises(RequestError) as caught:
        find("x" * 100_000)
    assert len(str(caught.value)) < 300
