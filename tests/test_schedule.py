"""What docs/notifications.md shows: the nightly script makes manifests, the receiver tells what is genuine, and systemd
takes no verdict for a failure."""

from __future__ import annotations

import configparser
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import ladder
from ladder.manifest import Name, read_requests
from ladder.notify import trial
from ladder.notify.hooks import new_hook
from ladder.notify.post import signature
from ladder.report.console import EXIT_CODES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "notifications.md"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_nightly_script_makes_a_child_of_each_day_that_none_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for day in ("2026-11-26", "2026-11-28", "2026-11-27"):
        Path(f"data/{day}.train.jsonl").write_text(f'{{"text": "the moon of {day}"}}\n')
        Path(f"data/{day}.probes.jsonl").write_text('{"prompt": "who?", "answer": "luna"}\n')
    names = [Name("Mine", index) for index in (0, 1, 3, 2)]
    known = [SimpleNamespace(name=name, note="the rows of 2026-11-26" * (name.index == 3)) for name in names]
    family: Any = type("Known", (list,), {"head": known[1]})(known)
    verdicts, asked = ["REJECTED", "FAILED"], list[ladder.Manifest]()

    def evolve(manifest: ladder.Manifest) -> list[Any]:
        asked.append(manifest)
        told = manifest.evolution_request
        family.append(SimpleNamespace(name=Name.parse(told.child_gen), note=told.note))
        return [SimpleNamespace(verdict=verdicts[len(asked) - 1], detail="no room")]

    monkeypatch.setattr(ladder, "family", lambda name: family, raising=False)
    monkeypatch.setattr(ladder, "evolve", evolve, raising=False)
    with pytest.raises(SystemExit, match="no room"):
        exec(blocks("python")[1], {})
    made = [(str(one.child), str(one.parent), one.manifest.evolution_request.note) for one in read_requests(asked)]
    days = ["the rows of 2026-11-27", "the rows of 2026-11-28"]
    assert made == [("Mine-G004", "Mine-G001", days[0]), ("Mine-G005", "Mine-G001", days[1])]


def test_the_receiver_that_is_shown_tells_what_is_genuine() -> None:
    shown: dict[str, Any] = {}
    exec(blocks("python")[0], shown)
    hook, message, now = new_hook("chat", "https://example.org"), trial(), str(int(time.time()))

    def headers(moment: str, body: bytes) -> dict[str, str]:
        signed = signature(hook.key, message.id, moment, body)
        return {"webhook-id": message.id, "webhook-timestamp": moment, "webhook-signature": f"v1,other {signed}"}

    body, old = message.body(), str(int(time.time()) - 3600)
    assert shown["is_genuine"](headers(now, body), body, hook.secret)
    assert not shown["is_genuine"](headers(now, body), body + b" ", hook.secret)
    assert not shown["is_genuine"](headers(old, body), body, hook.secret)
    assert not shown["is_genuine"](headers(now, body), body, new_hook("chat", hook.url).secret)


def test_systemd_takes_no_verdict_for_a_failure() -> None:
    service, timer = (configparser.ConfigParser(interpolation=None) for _ in range(2))
    for unit, text in zip((service, timer), blocks("ini"), strict=True):
        unit.read_string(text)
    verdicts = {str(code) for verdict, code in EXIT_CODES.items() if verdict in ("REJECTED", "PASSED")}
    assert set(service["Service"]["SuccessExitStatus"].split()) == verdicts
    assert service["Service"]["KillMode"] == "mixed" and timer["Timer"]["OnCalendar"]
