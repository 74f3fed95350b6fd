"""The structure of ladder/, measured: ``python tests/house.py [FOLDER]`` prints it for the checkout that FOLDER names.

Rooms are the folders of ladder/, and the files beside them. An import counts wherever it stands: at the top, inside a
function, under TYPE_CHECKING, or as ``import_module("name")``; importing a name from a room's front door counts as
importing that room.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# High to low: a room imports those below it. Each line says why it stands where it stands.
ORDER = (
    "__init__",  # the front door: names of the API, each imported when it is asked for
    "__main__",
    "cli",  # the command line: what an error prints, and which exit code it has
    "commands",  # one thin function per verb
    "jobs",  # entrypoints that Ray Jobs call
    "api",  # what people call from Python; beside the command line, and by the same functions
    "verbs",  # what a verb does beyond the run
    "spine",  # one manifest from reading to HEAD
    "run",  # training and examination, by actors
    "planning",  # the one preparation: whether a run may begin, and what it would take
    "setup",  # what a run is made of: its folder, dataset, roles, exam and laws
    "actors",  # the only room that starts Ray's actors
    "report",  # what people see of it
    "notify",  # whom a home tells of verdicts and moves of HEAD
    "registry",  # the only room that writes to MLflow
    "gates",  # the decision
    "laws",  # what must never happen; some of it is watched while a student trains
    "train",  # the trainer; its student writes samples by the exam's rules
    "exam",  # probes asked and answered
    "methods",  # which loss, which teachers
    "teachers",  # what a teacher says of a token
    "sampling",  # what a model writes
    "concepts",  # directions in a model's residual stream: read, compared, added
    "data",  # rows to batches
    "models",  # folders, tokenizers, heads, adapters
    "distill",  # tensor mathematics
    "manifest",  # what may be asked for
    "system",  # files, processes, signals
    "errors",
)


@dataclass(frozen=True)
class Import:
    """One import: the module it stands in, where, and the full name of what it imports."""

    module: str
    place: str
    target: str

    @property
    def room(self) -> str:
        return self.module.split(".")[1] if "." in self.module else "__init__"

    @property
    def package(self) -> str:
        return self.target.partition(".")[0]

    @property
    def ladder_room(self) -> str | None:
        """The room of ladder that is imported; None for another package, `ladder` itself or its version."""
        package, _, rest = self.target.partition(".")
        room = rest.partition(".")[0]
        return room if package == "ladder" and room not in {"", "__version__"} else None


def sources(root: Path) -> Iterator[tuple[str, Path]]:
    """(dotted name, file) of every module, with cli.py and jobs/ under the names that they have when installed."""
    links = {root / "ladder" / "cli.py", root / "ladder" / "jobs"}
    package = [path for path in sorted((root / "ladder").rglob("*.py")) if links.isdisjoint([path, *path.parents])]
    yield from ((_dotted(path.relative_to(root)), path) for path in package)
    for path in [root / "cli.py", *sorted((root / "jobs").rglob("*.py"))]:
        yield _dotted("ladder" / path.relative_to(root)), path


def imports(root: Path) -> list[Import]:
    """Every import of every module."""
    modules = dict(sources(root))
    return [
        Import(module, f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)}", target)
        for module, path in modules.items()
        for node in ast.walk(ast.parse(path.read_text(), filename=str(path)))
        for target in _targets(module, node, modules)
    ]


def upward(found: list[Import]) -> list[Import]:
    """The imports of a room that stands higher, or in no order at all."""
    rank = {room: place for place, room in enumerate(ORDER)}
    known = [one for one in found if one.ladder_room is not None and one.ladder_room != one.room]
    return [one for one in known if rank.get(one.ladder_room or "", -1) <= rank.get(one.room, len(ORDER))]


def cycles(found: list[Import], modules: set[str]) -> list[list[str]]:
    """Groups of files that import each other, directly or by way of others (Tarjan's strongly connected components)."""
    arrows: dict[str, set[str]] = defaultdict(set)
    for one in found:
        if one.target in modules and one.target != one.module:
            arrows[one.module].add(one.target)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(arrows[node]):
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            groups.append(sorted(group))

    for module in sorted(modules):
        if module not in index:
            visit(module)
    return [group for group in groups if len(group) > 1]


def measured(root: Path) -> dict[str, float]:
    """The figures that CONTRIBUTING names, of the checkout in ``root``."""
    modules, found = dict(sources(root)), imports(root)
    lines = sum(len(path.read_text().splitlines()) for path in modules.values())
    own = {(one.place, one.target.rpartition(".")[0] or one.target) for one in found if one.package == "ladder"}
    statements = len({place for place, _ in own})
    long = sorted(_lengths(modules.values()))
    return {
        "files at the top of ladder/": len(list((root / "ladder").glob("*.py"))),
        "rooms at the top": len({module.split(".")[1] for module in modules if "." in module}),
        "files": len(modules),
        "files per 1,000 lines": round(1000 * len(modules) / lines, 2),
        "lines": lines,
        "imports of ladder's own modules per 1,000 lines": round(1000 * statements / lines, 1),
        "functions": len(long),
        "lines of a function, median": statistics.median(long),
        "lines of a function, 90th percentile": long[int(0.9 * len(long))],
        "imports of a room that stands higher": len(upward(found)),
        "groups of files that import each other": len(cycles(found, set(modules))),
    }


def _dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _absolute(module: str, node: ast.ImportFrom) -> str:
    """The full name of what `from X import ...` imports from, with leading dots resolved against the module."""
    if not node.level:
        return node.module or ""
    base = module.split(".")[: -node.level]
    return ".".join([*base, *([node.module] if node.module else [])])


def _is_dynamic(node: ast.Call) -> bool:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
    return name in {"import_module", "__import__"}


def _targets(module: str, node: ast.AST, modules: dict[str, Path]) -> list[str]:
    """What a node imports, by module; `from ladder import cli` is `ladder.cli`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        origin = _absolute(module, node)
        named = [f"{origin}.{alias.name}" for alias in node.names]
        return sorted({name if name in modules or origin == "ladder" else origin for name in named})
    if isinstance(node, ast.Call) and _is_dynamic(node):
        values = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
        return [value for value in values if isinstance(value, str)]
    return []


def _lengths(paths: Iterable[Path]) -> Iterator[int]:
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                yield node.end_lineno - node.lineno + 1


def main() -> None:
    root = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT
    figures = measured(root)
    width = max(map(len, figures))
    for name, figure in figures.items():
        print(f"{name:{width}}  {figure:>8}")
    for one in upward(imports(root)):
        print(f"upward: {one.place} imports {one.target}")
    for group in cycles(imports(root), set(dict(sources(root)))):
        print(f"cycle: {' '.join(group)}")


if __name__ == "__main__":
    main()
