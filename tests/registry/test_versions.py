"""What a person types finds one generation, or says what comes nearest."""

from __future__ import annotations

import json

import pytest

from ladder.errors import NotFound, RegistryError, UsageError
from ladder.registry import Verdict, versions
from tests.registry.test_direct import through_mlflow

pytestmark = pytest.mark.usefixtures("fast_models")


def test_every_kind_of_reference(luna, make):
    again = luna.record(make("Luna-G002", 0.7, passed=False, failed_gates=["tone"]))
    assert luna.find("Luna@HEAD").ref == "Luna-G002"
    assert luna.find("Luna-G002").attempt == 1, "the promoted attempt comes before a later one"
    assert luna.find("Luna-G002.2") == again
    assert luna.find("Luna-G002.1").verdict is Verdict.PROMOTED
    assert luna.find(again.digest[:10]) == again
    assert luna.find(again.digest) == again


def test_the_latest_attempt_where_none_was_promoted(registry, make):
    for shift in (0.1, 0.2):
        registry.record(make("Luna-G000", shift, passed=False, failed_gates=["tone"]))
    assert registry.find("Luna-G000").ref == "Luna-G000.2"


def test_a_prefix_that_fits_two_models_is_refused(registry, make, monkeypatch):
    from ladder.registry import versions

    real = versions.to_generation
    registry.record(make("Luna-G000", 0.1))
    registry.record(make("Luna-G001", 0.2))
    from dataclasses import replace

    def alike(version, *, is_head):
        found = real(version, is_head=is_head)
        return replace(found, digest="abcdef" + found.digest[6:])

    monkeypatch.setattr(versions, "to_generation", alike)
    with pytest.raises(UsageError, match=r"several digests: Luna-G000 abcdef\w{4}, Luna-G001"):
        registry.find("abcdef")


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("Luna-G007", "nearest are Luna-G00"),
        ("Luna-G000.4", "no generation Luna-G000.4"),
        ("Terra-G000", "known are Luna"),
        ("Terra@HEAD", "known are Luna"),
        ("123456789abcdef", "no generation's digest starts with"),
    ],
)
def test_what_is_not_there_says_what_is(registry, make, reference, said):
    registry.record(make("Luna-G000"))
    with pytest.raises(NotFound) as caught:
        registry.find(reference)
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


def test_head_before_the_first_promotion(registry, make):
    registry.record(make("Luna-G000"))
    with pytest.raises(NotFound, match="Luna has no HEAD yet") as caught:
        registry.find("Luna@HEAD")
    assert "Luna-G000" in str(caught.value)


def test_families_are_ladders_only(registry, make):
    registry.record(make("Luna-G000"))
    registry.store.client.create_registered_model("somebody-elses")
    assert registry.families() == ["Luna"]
    assert registry.generations("somebody-elses") == []


def test_what_machines_read_stands_at_the_logged_model_and_versions_of_before_are_still_read(luna, make):
    """A version that an earlier ladder wrote has everything itself; one of now has what people read."""
    parent = luna.head("Luna")
    new = luna.record(make("Luna-G003", 0.3, parent=parent, passed=False, failed_gates=["recall"], note="why"))
    client = luna.store.client
    shown = client.get_model_version("Luna", "4").tags
    held = json.loads(client.get_logged_model(new.model_id).tags["ladder.record"])
    assert set(shown) == set(versions.READ_BY_PEOPLE) and not set(shown) & set(held)
    for key, value in held.items():
        client.set_model_version_tag("Luna", "4", key, value)
    for spoiled in ("no JSON", "[1]", '{"ladder.method": 7}'):
        client.set_logged_model_tags(new.model_id, {"ladder.record": spoiled})
        assert luna.find("Luna-G003") == through_mlflow(luna).find("Luna-G003") == new
    client.delete_model_version_tag("Luna", "4", "ladder.method")
    for registry in (luna, through_mlflow(luna)):
        with pytest.raises(RegistryError, match=r"do not describe a generation: KeyError\('ladder.method'\)"):
            registry.find("Luna-G003")


def test_many_are_completed_in_one_query(luna, make, monkeypatch):
    """From nine versions on MLflow is not asked for each logged model by itself."""
    monkeypatch.setattr(versions, "_MANY", 2)
    slow = through_mlflow(luna)
    real, asked = type(slow.store.client).get_logged_model, []
    monkeypatch.setattr(
        type(slow.store.client), "get_logged_model", lambda client, name: asked.append(name) or real(client, name)
    )
    assert slow.generations("Luna") == luna.generations("Luna")
    assert len(asked) == 1, "of HEAD alone"
