"""No call in the tree runs what a file says: no pickle, no remote code, no evaluated text, no YAML with tags.

Read from the source with `ast`, so a word in a comment or a message is no call.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tally import Tally

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("ladder", "jobs", "manifests", "benchmarks")
# Modules that unpickle, or execute what they read.
MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
BUILTINS = {"eval", "exec", "__import__"}
CALLS = {
    "torch.load",
    "torch.hub.load",
    "torch.jit.load",
    "pandas.read_pickle",
    "os.system",
    "os.popen",
    "numpy.load",
    *(f"yaml.{name}" for name in ("load", "load_all", "full_load", "full_load_all", "unsafe_load", "unsafe_load_all")),
}
NAMES = {"Loader", "FullLoader", "UnsafeLoader", "CLoader", "CFullLoader", "CUnsafeLoader"}
# A flag, and the one value that may be written for it.
FLAGS = {"trust_remote_code": False, "allow_pickle": False, "shell": False, "weights_only": True, "autoescape": True}


def dangers(root: Path) -> list[str]:
    """Every such call under root, as `file:line what`."""
    return [danger for path in _sources(root) for danger in _in_file(path, str(path.relative_to(root)))]


def _sources(root: Path) -> list[Path]:
    return [*sorted(root.glob("*.py")), *(path for folder in FOLDERS for path in sorted((root / folder).rglob("*.py")))]


def _in_file(path: Path, name: str) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=name)
    full = _aliases(tree)
    for node in ast.walk(tree):
        for what in _dangers(node, full):
            yield f"{name}:{getattr(node, 'lineno', 0)} {what}"


def _aliases(tree: ast.AST) -> dict[str, str]:
    """What a name of the file means in full: `import torch as t` and `from torch import load`."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.asname: alias.name for alias in node.names if alias.asname}
        if isinstance(node, ast.ImportFrom) and not node.level:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _dangers(node: ast.AST, full: dict[str, str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in MODULES)
    if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
        yield str(node.module)
    if isinstance(node, ast.Name | ast.Attribute):
        name = _full_name(node, full)
        if name in CALLS or name in BUILTINS or name.removeprefix("builtins.") in BUILTINS:
            yield name
        if name.startswith("yaml.") and name.rpartition(".")[2] in NAMES:
            yield name
    if isinstance(node, ast.keyword) and node.arg in FLAGS and not _is(node.value, FLAGS[node.arg]):
        yield f"{node.arg}={ast.unparse(node.value)}"


def _full_name(node: ast.AST, full: dict[str, str]) -> str:
    """The dotted name that an expression is, with imports resolved; empty where it is something else."""
    if isinstance(node, ast.Name):
        return full.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        base = _full_name(node.value, full)
        return f"{base}.{node.attr}" if base else ""
    return ""


def _is(node: ast.expr, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def test_the_tree_holds_none(tally: Tally) -> None:
    assert len(_sources(ROOT)) > 200
    tally("T14, unsafe calls", in_the_tree=len(dangers(ROOT)))
    assert dangers(ROOT) == []


VIOLATIONS = {
    "torch": "import torch\ntorch.load('m.pt')",
    "torch renamed": "import torch as t\nt.load('m.pt')",
    "torch by name": "from torch import load\nload('m.pt')",
    "torch handed on": "import torch\nread = torch.load",
    "pickle": "def f():\n    import pickle",
    "pickle by name": "from pickle import loads as read",
    "remote code": "AutoModel.from_pretrained('m', trust_remote_code=True)",
    "remote code by a variable": "AutoModel.from_pretrained('m', trust_remote_code=trusted)",
    "eval": "eval('1')",
    "eval of builtins": "import builtins\nbuiltins.eval('1')",
    "exec": "exec('1')",
    "yaml": "import yaml\nyaml.load(text, yaml.SafeLoader)",
    "yaml with another loader": "import yaml\nclass Own(yaml.FullLoader): ...",
    "yaml by name": "from yaml import unsafe_load\nunsafe_load(text)",
    "numpy": "import numpy as np\nnp.load('a.npy')",
    "a shell": "import subprocess\nsubprocess.run(text, shell=True)",
    "a page without escapes": "Environment(autoescape=False)",
}


@pytest.mark.parametrize("code", VIOLATIONS.values(), ids=VIOLATIONS.keys())
@pytest.mark.parametrize("place", ["ladder/models/own.py", "jobs/own.py", "own.py"])
def test_a_planted_one_is_found(code: str, place: str, tmp_path: Path, tally: Tally) -> None:
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text(code)
    found = any(danger.startswith(f"{place}:") for danger in dangers(tmp_path))
    tally("T14, unsafe calls", planted=1, found=found)
    assert found


def test_what_only_looks_like_one_is_not_reported(tmp_path: Path) -> None:
    harmless = '''
import re, json, yaml
from torch import save
"""torch.load and eval() in a text"""
model.eval()
re.compile("eval")
json.load(stream)
yaml.safe_load(text)
class Own(yaml.SafeLoader): ...
AutoModel.from_pretrained("m", trust_remote_code=False)
'''
    (tmp_path / "own.py").write_text(harmless)
    assert dangers(tmp_path) == []
