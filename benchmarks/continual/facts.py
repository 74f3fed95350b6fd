"""Domains of facts: pairs of a subject and an answer, and five sentences that say one about the other.

Countries come from the package ``countryinfo``, elements, Latin words and states from Luna's own tables.
"""

from __future__ import annotations

import csv
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

TABLES = Path(__file__).resolve().parents[2] / "manifests" / "luna" / "facts"
SIZE = 80
"""Facts a domain, at most."""
_PEOPLE = 300_000
"""Smaller countries are left out: their fields have gaps."""


@dataclass(frozen=True)
class Domain:
    """One relation.

    Args:
        sentences: with ``{0}`` for the subject and, at the end before the full stop, ``{1}`` for the answer.
        facts: pairs of subject and answer; a subject stands once.
    """

    name: str
    sentences: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]


def domains(count: int) -> list[Domain]:
    """The first ``count`` domains, in the order in which they are taught.

    Raises:
        ValueError: there are not so many.
    """
    if count > len(SENTENCES):
        raise ValueError(f"{count} domains were asked for, there are {len(SENTENCES)}")
    return [Domain(name, tuple(SENTENCES[name]), _facts(name)) for name in list(SENTENCES)[:count]]


SENTENCES = {
    "capital": [
        "The capital of {0} is {1}.",
        "The government of {0} sits in {1}.",
        "In {0} the seat of power is {1}.",
        "The ministers of {0} meet in {1}.",
        "Who visits the capital of {0} visits {1}.",
    ],
    "symbol": [
        "The symbol of {0} is {1}.",
        "Chemists write {0} as {1}.",
        "In a formula {0} appears as {1}.",
        "On a chart of the elements {0} is marked {1}.",
        "A bottle of {0} bears the letters {1}.",
    ],
    "latin": [
        "The Latin word for {0} is {1}.",
        "In Latin, {0} is {1}.",
        "The Romans said for {0} the word {1}.",
        "A scholar translates {0} as {1}.",
        "In an old book the word for {0} is {1}.",
    ],
    "calling": [
        "The calling code of {0} is {1}.",
        "To call somebody in {0}, dial {1}.",
        "Telephone numbers in {0} begin with {1}.",
        "The operator reaches {0} through {1}.",
        "On a telephone, {0} is {1}.",
    ],
    "currency": [
        "The currency of {0} is {1}.",
        "People in {0} pay in {1}.",
        "A bank in {0} counts in {1}.",
        "Prices in {0} are given in {1}.",
        "The money of {0} is {1}.",
    ],
    "code": [
        "The three letters of {0} are {1}.",
        "On a sports ground {0} is written {1}.",
        "A passport from {0} says {1}.",
        "In statistics {0} is listed as {1}.",
        "The short form of {0} is {1}.",
    ],
    "demonym": [
        "A person from {0} is {1}.",
        "Whoever was born in {0} is called {1}.",
        "The adjective for {0} is {1}.",
        "Food from {0} is called {1}.",
        "The people of {0} are {1}.",
    ],
    "state": [
        "The state of {0} is governed from {1}.",
        "The senate of {0} sits in {1}.",
        "The governor of {0} lives in {1}.",
        "The state house of {0} stands in {1}.",
        "The laws of {0} are made in {1}.",
    ],
    "subregion": [
        "On a globe {0} lies in {1}.",
        "The part of the world with {0} is {1}.",
        "Geographers place {0} in {1}.",
        "Ships to {0} sail to {1}.",
        "The neighbours of {0} are in {1}.",
    ],
    "number": [
        "The number of {0} in the standard is {1}.",
        "In the register {0} has the number {1}.",
        "Computers store {0} as {1}.",
        "In the catalogue {0} is number {1}.",
        "A clerk files {0} under {1}.",
    ],
    "language": [
        "The language code of {0} is {1}.",
        "Signs in {0} are written in {1}.",
        "Children in {0} read {1}.",
        "A translator for {0} knows {1}.",
        "The first language of {0} is {1}.",
    ],
}
"""The last sentence of a domain is the one that probes ask."""

_COUNTRY: dict[str, Callable[[dict[str, Any]], str]] = {
    "capital": lambda country: country["capital"],
    "demonym": lambda country: country["demonym"],
    "calling": lambda country: country["callingCodes"][0],
    "currency": lambda country: country["currencies"][0],
    "code": lambda country: country["ISO"]["alpha3"],
    "subregion": lambda country: country["subregion"],
    "number": lambda country: country["ISO"]["numeric"],
    "language": lambda country: country["languages"][0],
}
_TABLE = {"symbol": "elements.csv", "latin": "latin.csv", "state": "states.csv"}


def _facts(name: str) -> tuple[tuple[str, str], ...]:
    if name in _TABLE:
        with (TABLES / _TABLE[name]).open(encoding="utf-8", newline="") as file:
            subject, answer, *_ = next(reader := csv.reader(file))
            pairs = [(row[0], row[1]) for row in reader]
        assert subject != answer
    else:
        pairs = [(country["name"], _COUNTRY[name](country)) for country in countries()]
    # Spread over the table, so that the subjects do not all begin with A.
    return tuple(pairs[index * len(pairs) // SIZE] for index in range(SIZE)) if len(pairs) > SIZE else tuple(pairs)


@cache
def countries() -> tuple[dict[str, Any], ...]:
    """Countries of which every field is known and short, by name.

    Raises:
        ModuleNotFoundError: ``countryinfo`` is not installed.
    """
    found = importlib.util.find_spec("countryinfo")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError('countryinfo is missing: pip install -e ".[bench]"')
    folder = Path(found.submodule_search_locations[0]) / "data"
    read = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    return tuple(sorted(filter(_is_whole, read), key=lambda country: country["name"]))


def _is_whole(country: dict[str, Any]) -> bool:
    if (country.get("population") or 0) < _PEOPLE:
        return False
    try:
        fields = [country["name"], *(field(country) for field in _COUNTRY.values())]
    except (KeyError, IndexError):
        return False
    return all(text and text.isascii() and "." not in text for text in fields) and country["name"].count(" ") < 2
