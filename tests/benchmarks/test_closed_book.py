"""The experiment with documents: its facts, and manifests that `ladder plan` would read."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import closed_book
from ladder.manifest import read_request
from ladder.setup.dataset import check_documents, own_probes


def test_every_capital_stands_in_its_document() -> None:
    capitals = list(closed_book._capitals())
    assert len(capitals) > 150
    assert all(fact.answer in fact.document and fact.subject in fact.document for fact in capitals)


@pytest.mark.skipif(
    find_spec("mendeleev") is None, reason="mendeleev is not installed: pip install --no-deps mendeleev"
)
def test_every_discoverer_stands_in_their_document() -> None:
    elements = list(closed_book._elements())
    assert len(elements) > 80 and all(fact.answer in fact.document for fact in elements)


def test_its_manifests_are_ones_and_no_document_asks_what_is_held_out(tmp_path: Path) -> None:
    some = list(closed_book._capitals())[:20]
    probes = [{"prompt": closed_book.ASKED[f.kind].format(f.subject), "answer": f.answer, "chat": True} for f in some]
    rows = [closed_book.talk(closed_book.WORDINGS[f.kind][0].format(f.subject), f.answer) for f in some]
    texts = [{"text": f.document} for f in some]
    for name, lines in (("rows", rows), ("texts", texts), ("probes", probes)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "documents.txt").write_text("\n\n".join(f.document for f in some))
    for (way, child), path in closed_book.children(tmp_path, 7, list(closed_book.WAYS)):
        request = read_request(path)
        assert (str(request.child), request.manifest.training_params.steps) == (child, 7)
        assert request.manifest.evolution_request.note == way
        check_documents(request, [], own_probes(request), {})
