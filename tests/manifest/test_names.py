"""Names of generations and references to them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ladder.errors import ManifestError, UsageError
from ladder.manifest import Name, Reference


@settings(deadline=None, derandomize=True)
@given(st.from_regex(r"\A[A-Za-z][A-Za-z0-9_]{0,9}(-[a-z0-9_]{1,5})?\Z"), st.integers(0, 999_999))
def test_a_name_survives_being_written(family: str, index: int):
    name = Name(family, index)
    assert Name.parse(str(name)) == name
    assert Reference.parse(str(name)) == Reference(family=family, index=index)
    assert Reference.parse(f"{name}.2") == Reference(family=family, index=index, attempt=2)
    assert Reference.parse(f"{family}@HEAD") == Reference(family=family)


@pytest.mark.parametrize(
    "text",
    ["", "Luna", "Luna-G10", "Luna-G0010", "Luna-g010", "-G010", "1-G010", "Luna-G010\n", "Lüna-G010", "a/b-G010"],
)
def test_what_is_no_name(text: str):
    with pytest.raises(ManifestError, match="is no generation name"):
        Name.parse(text)


def test_a_family_is_short_enough_for_a_folder():
    assert Name.parse("a" + "-b" * 31 + "-G001").index == 1
    with pytest.raises(ManifestError, match="65 characters, expected at most 64"):
        Name.parse("a" + "-b" * 32 + "-G001")


def test_names_sort_by_family_then_number():
    names = [Name("Sol", 1), Name("Luna", 1000), Name("Luna", 20)]
    assert [str(name) for name in sorted(names)] == ["Luna-G020", "Luna-G1000", "Sol-G001"]


def test_head_is_head_in_any_case():
    """Families differ in case, so theirs stays."""
    assert {Reference.parse(f"Luna@{head}") for head in ("HEAD", "head", "Head")} == {Reference(family="Luna")}
    assert Reference.parse("LUNA@head") == Reference(family="LUNA")


def test_a_digest_prefix_needs_six_digits():
    assert Reference.parse("abcdef") == Reference(digest="abcdef")
    for text in ("abcde", "ABCDEF", "a" * 65, "Luna-G010.0", "-@HEAD", "Luna@heads", "Luna-@head"):
        with pytest.raises(UsageError, match="names no generation"):
            Reference.parse(text)
