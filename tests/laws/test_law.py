"""A law's line of the report: what its digest depends on, and which texts its bound counts."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from ladder.laws.law import Findings, LawResult, Violation, sampled_sentence, upper_bound

LAW = LawResult("forbidden_text", "text", 1, {"forbidden_text": ["ü"]}, Findings(300, (), 64))


def broken(*where: str) -> tuple[Violation, ...]:
    return tuple(Violation("forbidden_text", "x", name) for name in where)


def test_the_digest_is_that_of_canonical_json():
    canonical = b'{"name":"forbidden_text","parameters":{"forbidden_text":["\\u00fc"]},"version":1}'
    assert LAW.digest == hashlib.sha256(canonical).hexdigest()


def test_the_digest_depends_on_the_rule_and_not_on_what_was_found():
    rules = [replace(LAW, name="a"), replace(LAW, version=2), replace(LAW, parameters={"forbidden_text": ["u"]})]
    assert len({LAW.digest, *(rule.digest for rule in rules)}) == 4
    assert replace(LAW, found=Findings(1, broken("tone 1"))).digest == LAW.digest


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ((), 0),
        (("sampled 1", "sampled 64"), 2),
        # Two patterns in one text, a text that was not sampled, and names of texts that are not there.
        (("sampled 3", "sampled 3"), 1),
        (("generalize 3", "sampled 3"), 1),
        (("sampled 0", "sampled 65", "sampled"), 0),
    ],
)
def test_the_bound_of_a_law_that_reads_samples_is_about_them(where, count):
    law = replace(LAW, found=Findings(300, broken(*where), 64))
    assert law.upper_bound == upper_bound(count, 64)
    assert sampled_sentence([law]).startswith(f"{count} of 64 sampled texts break one")


def test_the_bound_of_a_law_with_prompts_is_about_them():
    assert replace(LAW, found=Findings(20, ())).upper_bound == upper_bound(0, 20)
    assert replace(LAW, found=Findings(20, broken("p.txt 2", "p.txt 2", "p.txt 9"))).upper_bound == upper_bound(2, 20)
    assert sampled_sentence([replace(LAW, found=Findings(20, ()))]) == ""


def test_what_is_looked_at_completely_has_no_bound():
    assert replace(LAW, family="request", found=Findings(3, ())).upper_bound is None
    assert replace(LAW, found=Findings(0, broken("laws.x"))).upper_bound is None


def test_a_text_that_breaks_two_laws_counts_once():
    laws = [
        replace(LAW, found=Findings(64, broken(*where), 64)) for where in (("sampled 1",), ("sampled 1", "sampled 2"))
    ]
    assert sampled_sentence(laws).startswith("2 of 64 sampled texts break one, so at most 9.5%")
