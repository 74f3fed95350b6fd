"""A table of nodes, roles and pins: who gets which card, and that Ray finds room for all of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from ladder.actors.placement import (
    NODE_ID,
    Machine,
    Node,
    Placement,
    place,
    processes,
    ranks_of,
    student_threads,
    threads,
)
from ladder.errors import ManifestError
from ladder.manifest import ROLES, Runtime
from tests.processes import launch

ALL = " ".join(ROLES)
DUO = "student student.1 teacher1 evaluator"


class Row(NamedTuple):
    """One line of the table.

    Args:
        nodes: each as ``cores/cards``, with ``name=value`` for labels and ``name:amount`` for resources.
        roles: those of the run.
        devices: what ``runtime.devices`` says.
        cards: the cards, each with the roles on it, as they are expected.
        pinned: bundles are told their nodes.
    """

    nodes: str
    roles: str
    cards: tuple[str, ...] = ()
    devices: Mapping[str, Any] = MappingProxyType({})
    pinned: bool = False

    @property
    def machine(self) -> Machine:
        return Machine(tuple(_node(number, text) for number, text in enumerate(self.nodes.split(", "))))

    @property
    def placement(self) -> Placement:
        return place(Runtime.model_validate({"devices": dict(self.devices)}), self.machine, self.roles.split())


def _node(number: int, text: str) -> Node:
    size, *own = text.split()
    cores, cards = size.split("/")
    labels = dict(one.split("=") for one in own if "=" in one)
    resources = {name: float(amount) for name, amount in (one.split(":") for one in own if ":" in one)}
    return Node(f"n{number}", float(cores), int(cards), labels, resources, id=f"id{number}")


TABLE = {
    "no GPU": Row("2/0", "student"),
    "no GPU, one core": Row("1/0", "student teacher1"),
    "no GPU, ranks and replicas": Row("2/0", f"{ALL} student.1 student.2 teacher1.1"),
    "no GPU, further teachers": Row("2/0", f"{ALL} teacher3 teacher4 teacher4.1"),
    "a card for a further teacher": Row("8/3", "student teacher1 teacher3", ("student", "teacher1", "teacher3")),
    "further teachers as they are told": Row("8/2", "student teacher3 teacher4", ("student",), {"others": "cpu"}),
    "two nodes without GPU": Row("1/0, 3/0", ALL),
    "three nodes of one core": Row("1/0, 1/0, 1/0", ALL),
    "a head that only drives": Row("0/0, 4/0", ALL),
    "one for all": Row("8/1", ALL, ("student evaluator teacher1 teacher2",)),
    "two for four": Row("8/2", ALL, ("student evaluator", "teacher1 teacher2")),
    "two for three": Row("8/2", "student teacher1 evaluator", ("student evaluator", "teacher1")),
    "three for four": Row("8/3", ALL, ("student evaluator", "teacher1", "teacher2")),
    "four for four": Row("8/4", ALL, ("student", "teacher1", "teacher2", "evaluator")),
    "eight for two": Row("8/8", "student evaluator", ("student", "evaluator")),
    "four for ten": Row(
        "16/4",
        f"{ALL} {' '.join(f'teacher{teacher}.{number}' for teacher in (1, 2) for number in (1, 2, 3))}",
        (
            "student evaluator",
            "teacher1 teacher1.3 teacher2.2",
            "teacher1.1 teacher2 teacher2.3",
            "teacher1.2 teacher2.1",
        ),
    ),
    "two ranks, four for four": Row("8/4", DUO, ("student", "student.1", "teacher1", "evaluator")),
    "two ranks, three for four": Row("8/3", DUO, ("student evaluator", "student.1", "teacher1")),
    "two ranks, two for four": Row("8/2", DUO, ("student evaluator", "student.1 teacher1")),
    "two ranks on the node that has two": Row("8/1, 8/2, 8/1", DUO, ("teacher1", "student", "student.1", "evaluator")),
    "three ranks on as few nodes as can be": Row(
        "4/1, 4/2, 4/2", f"{DUO} student.2", ("teacher1", "student", "student.1", "student.2", "evaluator")
    ),
    "ranks that share, on two nodes": Row("4/2, 4/0", DUO, ("student evaluator", "student.1 teacher1"), pinned=True),
    "a GPU on one of two nodes": Row("4/0, 4/1", ALL, ("student evaluator teacher1 teacher2",)),
    "GPUs on two nodes": Row("4/2, 4/2", ALL, ("student", "evaluator", "teacher1", "teacher2")),
    "devices by number": Row(
        "8/2",
        ALL,
        ("student teacher2", "teacher1 evaluator"),
        {"student": "cuda:0", "teacher1": "cuda:1", "evaluator": "cuda:1"},
    ),
    "a device by number, and others after it": Row(
        "8/4", ALL, ("student", "teacher1", "teacher2", "evaluator"), {"teacher1": "cuda:1"}
    ),
    "the second device of the node that has two": Row(
        "8/1, 8/2", "student evaluator", ("student", "evaluator"), {"evaluator": "cuda:1"}, pinned=True
    ),
    "an evaluator on a processor": Row("8/1", ALL, ("student teacher1 teacher2",), {"evaluator": "cpu"}),
    "any GPU": Row("8/2", "student teacher1", ("student", "teacher1"), {"student": "cuda", "teacher1": "cuda"}),
    "a label": Row(
        "4/1 rack=a, 4/1 rack=b",
        "student teacher1",
        ("teacher1", "student"),
        {"student": {"labels": {"rack": "b"}}},
        pinned=True,
    ),
    "labels for all": Row(
        "4/1 rack=a, 4/1 rack=b",
        "student teacher1",
        ("student", "teacher1"),
        {"student": {"labels": {"rack": "a"}}, "teacher1": {"labels": {"rack": "b"}}},
    ),
    "a label on a node without GPU": Row(
        "4/1, 4/0 slow=yes", "student teacher1", ("student",), {"teacher1": {"labels": {"slow": "yes"}}}
    ),
    "a resource for each rank": Row(
        "4/2 big:1, 4/2 big:2",
        "student student.1 teacher1",
        ("teacher1", "student", "student.1"),
        {"student": {"device": "cuda", "resources": {"big": 1.0}}},
    ),
    "a resource for two roles": Row(
        "2/0 big:1, 2/0 big:1",
        "student teacher1 teacher2",
        (),
        {role: {"resources": {"big": 1.0}} for role in ("teacher1", "teacher2")},
    ),
}


def cards_of(placement: Placement) -> list[str]:
    """The roles of each card, in the order of cards. Of a bundle of several cards, ranks have one each, and others are
    told which."""
    cards: dict[tuple[int, str], list[str]] = defaultdict(list)
    for role, slot in placement.slots.items():
        if slot.device != "cpu":
            alone = role if slot.gpus == 1.0 else slot.device
            cards[slot.bundle, alone].append(role)
    return [" ".join(roles) for _, roles in sorted(cards.items(), key=lambda one: one[0])]


@pytest.mark.parametrize("name", TABLE)
def test_who_shares_a_card_with_whom(name: str) -> None:
    row, placement = TABLE[name], TABLE[name].placement
    assert sorted(sorted(card.split()) for card in cards_of(placement)) == sorted(sorted(c.split()) for c in row.cards)
    assert all(NODE_ID in bundle.labels for bundle in placement.bundles) is row.pinned
    assert set(placement.slots) >= set(row.roles.split())


@pytest.mark.parametrize("name", TABLE)
def test_every_bundle_holds_its_roles_and_ray_finds_room_for_it(name: str) -> None:
    row, placement = TABLE[name], TABLE[name].placement
    for number, bundle in enumerate(placement.bundles):
        held = [slot for slot in placement.slots.values() if slot.bundle == number]
        assert held and sum(slot.cpus for slot in held) <= bundle.cpus + 1e-9
        assert sum(slot.gpus for slot in held) <= bundle.gpus + 1e-9
    assert placed_as_ray_does(placement, row.machine) is not None


def placed_as_ray_does(placement: Placement, machine: Machine) -> list[int] | None:
    """The node of each bundle as Ray's scheduler chooses it, the scarcest first, one after the other and none taken
    back: SPREAD takes a node that has none yet where it can, PACK the one on which most of them fit. None where one
    finds no room."""
    nodes = machine.members
    left = [{"CPU": node.cpus, "GPU": float(node.gpus), **node.resources} for node in nodes]
    chosen: dict[int, int] = {}

    def fits(bundle: int, node: int) -> bool:
        asked = placement.bundles[bundle]
        labels = {**nodes[node].labels, NODE_ID: nodes[node].id}
        right = all(labels.get(name) == value for name, value in asked.labels.items())
        return right and all(left[node].get(name, 0.0) >= amount - 1e-9 for name, amount in asked.asked().items())

    def scarcity(bundle: int) -> tuple[float, ...]:
        asked = placement.bundles[bundle]
        return (-asked.gpus, -sum(asked.resources.values()), -asked.cpus)

    for bundle in sorted(range(len(placement.bundles)), key=scarcity):
        open_ = [node for node in range(len(nodes)) if fits(bundle, node)]
        fresh = [node for node in open_ if node not in chosen.values()]
        if not open_:
            return None
        choice = fresh if placement.spread and fresh else open_
        node = min(choice, key=lambda node: (left[node]["GPU"], left[node]["CPU"]))
        for name, amount in placement.bundles[bundle].asked().items():
            left[node][name] -= amount
        chosen[bundle] = node
    return [chosen[bundle] for bundle in range(len(placement.bundles))]


def test_the_check_sees_what_hangs() -> None:
    """Four times 0.75 of a card on three cards, and a node that others need taken by one that could go elsewhere."""
    fits = Row("8/3", ALL).placement
    assert placed_as_ray_does(fits, Machine.alone(8, 2)) is None
    free = TABLE["a label"].placement
    bundles = [
        type(bundle)(bundle.cpus, bundle.gpus, labels)
        for bundle, labels in zip(free.bundles, ({}, {"rack": "a"}), strict=True)
    ]
    loose = Placement(tuple(bundles), free.slots, spread=True)
    assert placed_as_ray_does(loose, TABLE["a label"].machine) is None


def test_cores_are_shared_out_as_before_on_one_machine() -> None:
    for cores, share in ((1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0), (64, 1.0)):
        placement = place(Runtime(), Machine.alone(cores), ["student"])
        assert {role: (slot.cpus, slot.gpus, slot.device) for role, slot in placement.slots.items()} == dict.fromkeys(
            ROLES, (share, 0.0, "cpu")
        )


def test_a_folder_of_manifests_has_one_placement_where_there_is_no_gpu() -> None:
    placements = [
        place(Runtime(threads=count), Machine.alone(2), roles)
        for count, roles in (
            (1, ["student", "evaluator"]),
            (2, ["evaluator", "teacher1", "student"]),
            (None, ROLES),
            (None, ["evaluator"]),
        )
    ]
    assert all(placement == placements[0] for placement in placements)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (
            Row("2/0", ALL, devices={"teacher1": "cuda"}),
            "runtime.devices.teacher1: teacher1 is pinned to cuda, and Ray",
        ),
        (
            Row("8/2", ALL, devices={"evaluator": "cuda:2"}),
            "evaluator asks for cuda:2, and no node has that; nodes: n0",
        ),
        (Row("8/2, 8/2", ALL, devices={"evaluator": "cuda:3"}), "n0 (8 CPU, 2 GPU), n1 (8 CPU, 2 GPU)"),
        (Row("8/1", DUO), "runtime.student.ranks: found 2 ranks, which need a GPU each, and 1 is there for them"),
        (Row("8/1, 8/1", f"{DUO} student.2"), "found 3 ranks, which need a GPU each, and 2 are there"),
        (Row("8/2", DUO, devices={"student": "cuda:1"}), "found cuda:1 for 2 ranks, which need a GPU each (write cuda"),
        (
            Row("8/1 rack=a", ALL, devices={"teacher2": {"labels": {"rack": "b"}}}),
            "runtime.devices.teacher2: teacher2 asks for the label rack=b, and no node has that; "
            "nodes: n0 (8 CPU, 1 GPU, rack=a) (write what a node has",
        ),
        (
            Row("8/1 big:1", ALL, devices={"student": {"resources": {"big": 2.0}}}),
            "student asks for 2 of the resource big, and no node has that; nodes: n0 (8 CPU, 1 GPU, big: 1)",
        ),
        (
            Row("8/0 big:1", ALL, devices={role: {"resources": {"big": 1.0}} for role in ("student", "teacher1")}),
            "runtime.devices.teacher1.resources: teacher1 asks for 1 of big, which other roles of this run take",
        ),
        (Row("0/0", ALL), "student asks for a processor, and no node has that"),
    ],
)
def test_what_there_is_not_is_refused_by_name(row: Row, told: str) -> None:
    with pytest.raises(ManifestError) as caught:
        _ = row.placement
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("nodes", "ranks", "device", "expected"),
    [
        ("8/0", "auto", "auto", 1),
        ("8/1", "auto", "auto", 1),
        ("8/4", "auto", "auto", 1),
        ("8/5", "auto", "auto", 2),
        ("8/8", "auto", "auto", 4),
        ("8/2, 8/4", "auto", "cuda", 3),
        ("8/8", "auto", "cpu", 1),
        ("8/8", "auto", "cuda:1", 1),
        ("8/8", 3, "auto", 3),
        ("2/0", 3, "cpu", 3),
    ],
)
def test_auto_ranks_take_the_gpus_that_others_leave(nodes: str, ranks: Any, device: str, expected: int) -> None:
    runtime = Runtime.model_validate({"student": {"ranks": ranks}, "devices": {"student": device}})
    assert ranks_of(runtime, Row(nodes, "").machine, ["teacher1", "teacher2", "evaluator"], most=4) == expected


def test_processes_of_one_role() -> None:
    assert processes("student", 1) == ["student"]
    assert processes("teacher2", 3) == ["teacher2", "teacher2.1", "teacher2.2"]


@pytest.mark.parametrize(
    ("nodes", "roles", "runtime", "own", "others"),
    [
        ("4/0", ALL, {}, 4, 4),
        ("4/0", DUO, {}, 2, 4),
        ("5/0", f"{DUO} student.2", {}, 1, 5),
        ("4/0, 8/0", DUO, {}, 3, 6),
        ("0/0, 4/0", ALL, {}, 4, 4),
        ("4/2", DUO, {}, 2, 4),
        ("4/0", DUO, {"threads": 3}, 3, 3),
        ("4/0", DUO, {"threads": 3, "student": {"threads": 1}}, 1, 3),
    ],
)
def test_threads_of_ranks_share_their_nodes_cores(
    nodes: str, roles: str, runtime: dict[str, Any], own: int, others: int
) -> None:
    machine, asked = Row(nodes, "").machine, Runtime.model_validate(runtime)
    assert student_threads(asked, machine, place(asked, machine, roles.split())) == own
    assert threads(asked, machine) == others


ASKED = (
    "three for four",
    "two ranks, three for four",
    "two for three",
    "devices by number",
    "a label",
    "labels for all",
)
"""What Ray itself is asked, with cards that are not there; rows with the same nodes follow each other."""
ASK = """
import json
import ray
from ray.cluster_utils import Cluster
from ladder.actors import session
from ladder.manifest import Runtime
from tests.actors.test_placed import ASKED, TABLE

class Idle:
    "An actor that is there at once."

session._KINDS, session.START_TIMEOUT = dict.fromkeys(session._KINDS, Idle), 60.0
cluster, there, nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0}), "", []
with session.Session(cluster.address) as opened:
    for row in map(TABLE.get, ASKED):
        if row.nodes != there:
            opened.dismiss()
            for node in nodes:
                cluster.remove_node(node)
            nodes = [
                cluster.add_node(
                    num_cpus=int(node.cpus),
                    num_gpus=node.gpus,
                    labels=dict(node.labels),
                    object_store_memory=80 * 2**20,
                )
                for node in row.machine.members
            ]
            there = row.nodes
        opened.__dict__.pop("machine", None)
        placement = opened.placement(Runtime.model_validate({"devices": dict(row.devices)}), row.roles.split())
        actors = opened.start(placement, placement.slots)
        look = lambda _: (ray.get_runtime_context().get_node_id(), ray.get_gpu_ids())
        asked = [actor.__ray_call__.remote(look) for actor in actors.values()]
        found = dict(zip(actors, ray.get(asked), strict=True))
        print(json.dumps([{role: slot.device for role, slot in placement.slots.items()}, found]), flush=True)
"""


@pytest.mark.long
def test_ray_places_what_it_is_asked() -> None:
    """Six rows of the table, in a cluster whose nodes say that they have cards."""
    process = launch([sys.executable, "-c", ASK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said, error = process.communicate(timeout=240)
    told = [json.loads(line) for line in said.splitlines() if line.startswith("[")]
    assert len(told) == len(ASKED) and process.returncode == 0, error
    for name, (devices, found) in zip(ASKED, told, strict=True):
        cards: dict[tuple[str, Any], list[str]] = defaultdict(list)
        for role, (node, numbers) in found.items():
            if devices[role] != "cpu":
                cards[node, numbers[0] if numbers else devices[role]].append(role)
        expected = sorted(sorted(card.split()) for card in TABLE[name].cards)
        assert sorted(sorted(card) for card in cards.values()) == expected, name


def test_a_teacher_that_is_no_model_takes_no_card() -> None:
    """Whatever ``runtime.devices.others`` says of the models beside it."""
    roles, runtime = (
        ("student", "teacher3", "teacher4", "teacher4.1"),
        Runtime.model_validate({"devices": {"others": "cuda"}}),
    )
    slots = place(runtime, Machine.alone(8, 2), roles, {"teacher4"}).slots
    assert [(role, slot.device) for role, slot in slots.items()] == [
        ("student", "cuda:0"),
        ("teacher3", "cuda:0"),
        ("teacher4", "cpu"),
        ("teacher4.1", "cpu"),
    ]
    with pytest.raises(ManifestError, match="teacher3 is pinned to cuda") as caught:
        place(runtime, Machine.alone(8), roles, {"teacher4"})
    assert caught.value.where == "runtime.devices.others"
