"""Write the training rows and probes of both generations, and the probes of what SmolLM2 knew before.

Nothing is drawn at random: the same ``facts.toml`` gives the same files, and a test compares them with the committed
ones. Run it with ``python manifests/smollm2/make_data.py`` after changing a fact.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LESSONS = {"001-capitals": "capitals", "002-groups": "groups"}
"""Name of a generation's files, and the table they are written from."""


def render(tables: dict[str, Any]) -> dict[str, str]:
    """Content of every data file by its name."""
    files = {"000-known.probes.jsonl": _lines([_probe(*pair) for pair in tables["known"].items()])}
    for name, table in LESSONS.items():
        files[f"{name}.jsonl"] = _lines(rows(tables[table]))
        files[f"{name}.probes.jsonl"] = _lines(probes(tables[table]))
    return files


def rows(table: dict[str, Any]) -> list[dict[str, Any]]:
    """Each new fact in each of the training wordings and each known one in the first, as question and answer."""
    asked = [(wording, fact) for wording in table["train"] for fact in table["facts"].items()]
    asked += [(table["train"][0], fact) for fact in table["known"].items()]
    return [_conversation(wording.format(*fact), table["answer"].format(*fact)) for wording, fact in asked]


def probes(table: dict[str, Any]) -> list[dict[str, Any]]:
    """Each new fact in the wording that no row has. The article of an answer is not asked for."""
    return [_probe(table["probe"].format(*fact), re.sub("^an? ", "", fact[1])) for fact in table["facts"].items()]


def read_tables(folder: Path = HERE) -> dict[str, Any]:
    """The tables of ``facts.toml``."""
    return tomllib.loads((folder / "facts.toml").read_text(encoding="utf-8"))


def _conversation(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def _probe(question: str, answer: str) -> dict[str, Any]:
    return {"prompt": question, "answer": answer, "chat": True}


def _lines(records: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def main() -> None:
    """Write every file in ``data/``."""
    for name, content in render(read_tables()).items():
        (HERE / "data" / name).write_text(content, encoding="utf-8", newline="\n")
        print(f"{name}: {content.count(chr(10))} lines")


if __name__ == "__main__":
    main()
