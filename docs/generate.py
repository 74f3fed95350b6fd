"""The pages of docs/reference, made from the code: ``python docs/generate.py`` writes them, ``--check`` names old ones.

They are committed, so that they can be read in a checkout and a changed default is seen in a diff;
``tests/test_reference.py`` is red while one of them is not what this file makes.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "reference"
MADE = "<!-- Made by docs/generate.py from the code: change it there. -->"
_SHELL = re.compile(r"^```(?:sh)?\n(.*?)^```|((?:^    .+\n)+)", re.MULTILINE | re.DOTALL)


def main(arguments: list[str]) -> int:
    """Write the pages, or name those that are not as they would be written."""
    made = pages()
    old = [file for file, text in made.items() if not file.is_file() or file.read_text(encoding="utf-8") != text]
    if "--check" in arguments:
        for file in old:
            print(f"{file.relative_to(ROOT)} is old: run python docs/generate.py")
        return bool(old)
    FOLDER.mkdir(exist_ok=True)
    for file in old:
        file.write_text(made[file], encoding="utf-8")
        print(file.relative_to(ROOT))
    return 0


def pages() -> dict[Path, str]:
    """What docs/reference should hold, by file."""
    made = {"manifest": manifest_page(), "commands": commands_page(), "api": api_page()}
    return {FOLDER / f"{name}.md": re.sub(r"\n{3,}", "\n\n", text).strip() + "\n" for name, text in made.items()}


def manifest_page() -> str:
    """Every field of a manifest: what it may hold, what it is when left out, and why."""
    from ladder.manifest.explain import sections
    from ladder.manifest.schema import Manifest

    schema, every, told = Manifest.model_json_schema(), sections(), dict[type, tuple[str, ...]]()
    parts = [
        f"# Every field of a manifest\n\n{MADE}",
        "A manifest is JSON, YAML or TOML. What it leaves out has the default that stands here; an unknown key is "
        "refused with the nearest name. `ladder schema` prints the same as JSON Schema, for editors. What to set when "
        "is told in [the recipe](../recipe.md).",
    ]
    for path, section in every.items():
        if path:
            field = every[path[:-1]].model_fields[path[-1]]
            known = _properties(schema, every[path[:-1]])[path[-1]]
            about = prose(field.description or "") if field.description != section.__doc__ else ""
            parts.append(
                f"## `{'.'.join(path)}`\n\n*{_holds(field, known)}*\n\n{about}\n\n{prose(section.__doc__ or '')}"
            )
        if (first := told.setdefault(section, path)) != path:
            parts.append(f"Its fields are those of [`{'.'.join(first)}`](#{''.join(first)}).")
            continue
        fields = {key: field for key, field in section.model_fields.items() if (*path, key) not in every}
        parts += [
            f"### `{'.'.join((*path, key))}`\n\n*{_holds(field, _properties(schema, section)[key])}*\n\n"
            f"{prose(field.description or '')}"
            for key, field in fields.items()
        ]
        if inner := [(*path, key) for key in section.model_fields if (*path, key) in every]:
            links = ", ".join(f"[`{'.'.join(one)}`](#{''.join(one)})" for one in inner)
            parts.append(f"Sections of {'it' if path else 'a manifest'}: {links}.")
    return "\n\n".join(parts)


def _properties(schema: Mapping[str, Any], section: type) -> Mapping[str, Any]:
    found: Mapping[str, Any] = schema["$defs"].get(section.__name__, schema)["properties"]
    return found


def _holds(field: Any, known: Mapping[str, Any]) -> str:
    """What a field may hold and what it is when it is left out, in words."""
    groups = [one.group for one in field.metadata if hasattr(one, "group")]
    return f"{holding(known, groups)}; {_default(field)}"


def _default(field: Any) -> str:
    if field.is_required():
        return "must be written"
    if field.default is None:
        return "nothing when left out"
    return (
        "default as its fields say"
        if isinstance(field.default, BaseModel)
        else f"default `{json.dumps(field.default)}`"
    )


def holding(schema: Mapping[str, Any], groups: list[str]) -> str:
    """What a field may hold, in words; names of installed packages are left out, so that every machine says the same.

    Args:
        schema: the field's JSON Schema.
        groups: of entry points, one of whose names it holds.
    """
    from ladder.manifest.installed import OWN

    if groups:
        names = ", ".join(f"`{name}`" for name in OWN[groups[0]])
        return f"{names}, or what a package declares in `{groups[0]}`"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(holding(one, []) for one in schema["anyOf"] if one.get("type") != "null"))
    if "$ref" in schema:
        return "a section"
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{one}`" for one in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type")
    if kind == "array":
        return f"a list of {holding(schema['items'], [])}{', at least one' if schema.get('minItems') else ''}"
    if kind == "object":
        inside = schema.get("additionalProperties")
        return f"keys with {holding(inside, [])}" if isinstance(inside, dict) else "keys and values"
    words = {"string": "text", "boolean": "`true` or `false`", "integer": "a whole number", "number": "a number"}
    return words.get(str(kind), "anything") + _bounds(schema)


def _bounds(schema: Mapping[str, Any]) -> str:
    told = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    limits = [f"{word} {_power(schema[key])}" for key, word in told.items() if key in schema]
    if "pattern" in schema:
        limits.append(f"of the form `{schema['pattern']}`")
    return f" {' '.join(limits)}".replace(" below", ", below") if limits else ""


def _power(value: float) -> str:
    power = int(value).bit_length() - 1
    return f"2^{power}" if value > 1000 and value == 2**power else f"{value:g}"


def commands_page() -> str:
    """Every verb of the command line, its arguments and options, and the pages that show it at work."""
    import typer

    from ladder.cli import app
    from ladder.commands.app import PANELS

    parts = [
        f"# Every command\n\n{MADE}",
        "`ladder VERB --help` says the same in a terminal. Exit codes: 0 done or promoted, 1 failed, 2 usage or "
        "manifest, 3 a gate rejected the child, 4 passed but not promoted, 130 and 143 stopped by Ctrl-C or SIGTERM. "
        "What `--json` prints is in [JSON](../json.md), and a task for each verb in [how do I](../howto.md).",
    ]
    verbs: Any = typer.main.get_command(app)
    for panel in PANELS:
        parts.append(f"## {panel}")
        for name, command in verbs.commands.items():
            if command.rich_help_panel == panel:
                inner = getattr(command, "commands", None)
                told = [(f"{name} {one}", below) for one, below in inner.items()] if inner else [(name, command)]
                parts += [_command(*one) for one in told]
    return "\n\n".join(parts)


def _command(name: str, command: Any) -> str:
    arguments, options, usage = [], [], [f"ladder {name}"]
    for one in command.params:
        word = one.metavar or _word(one)
        if one.param_type_name == "argument":
            usage.append(word if one.required else f"[{word}]")
            arguments.append(f"- `{word}`{_told(one)}")
        elif not one.hidden and one.name != "help":
            flags = ", ".join([*one.opts, *one.secondary_opts])
            options.append(f"- `{flags}{'' if one.is_flag else f' {word}'}`{_told(one)}")
            usage += [f"{one.opts[0]} {word}"] if one.required else []
    shown = ", ".join(f"[{title}](../{page})" for page, title in _shown(name))
    return "\n\n".join(
        [
            f"### `ladder {name}`",
            prose(command.help or ""),
            f"```text\n{' '.join([*usage, '[OPTIONS]'] if options else usage)}\n```",
            "\n".join([*arguments, *options]),
            f"At work in: {shown}." if shown else "",
        ]
    )


def _word(parameter: Any) -> str:
    """What stands for a value that has no name of its own."""
    kind = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    if parameter.param_type_name == "argument":
        return str(parameter.name).upper() + ("..." if parameter.nargs == -1 else "")
    return {int: "NUMBER", float: "NUMBER", Path: "PATH"}.get(kind, "TEXT")


def _told(parameter: Any) -> str:
    notes = [prose(parameter.help)] if parameter.help else []
    if isinstance(parameter.show_default, str):
        notes.append(f"Default: {parameter.show_default}.")
    elif parameter.default not in (None, False, ()) and parameter.show_default:
        on = parameter.opts[0] if parameter.default is True else parameter.default
        notes.append(f"Default: `{on}`.")
    if getattr(parameter, "envvar", None):
        notes.append(f"Or `{parameter.envvar}` in the environment.")
    if parameter.required and parameter.param_type_name == "option":
        notes.append("Must be given.")
    return ": " + " ".join(notes) if notes else ""


def _shown(name: str) -> Iterator[tuple[str, str]]:
    """The pages on which a command line begins with this verb, with their titles."""
    for page in sorted((ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        blocks = "\n".join(fenced or indented for fenced, indented in _SHELL.findall(text))
        if re.search(rf"\bladder {re.escape(name)}(?= |$)", blocks, re.MULTILINE):
            yield page.name, text.partition("\n")[0].removeprefix("# ")


def public() -> list[str]:
    """The full names that people may rely on: those of ``ladder`` itself, then those that docs/extending.md imports."""
    import ladder

    own = [f"ladder.{name}" for name in getattr(ladder, "__all__", ()) if not name.startswith("_")]
    shown = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    imported = re.findall(r"^ *from (ladder[\w.]*) import ([\w, ]+)$", shown, re.MULTILINE)
    return list(dict.fromkeys([*own, *(f"{room}.{name}" for room, names in imported for name in names.split(", "))]))


def api_page() -> str:
    """The names of the Python interface, with the docstrings that they have in the code."""
    parts = [
        f"# The Python interface\n\n{MADE}",
        "What a program or a package of your own may import, and go on importing: these names stay. "
        "[Python](../python.md) and [extending](../extending.md) show them at work. Everything else in `ladder` may "
        "change without a word.",
    ]
    told: list[tuple[str, Any]] = []
    for name in public():
        module, _, last = name.rpartition(".")
        found = getattr(importlib.import_module(module), last)
        same = next((other for other, one in told if one is found), None)
        parts.append(f"## `{name}`\n\n{f'The same as `{same}`.' if same else _described(last, found)}")
        told.append((name, found))
    return "\n\n".join(parts)


def _described(name: str, found: Any) -> str:
    if not (inspect.isclass(found) or inspect.isroutine(found) or isinstance(found, property)):
        return "`" + re.sub(r"\b(?:\w+\.)+(?=[A-Z])", "", repr(found)) + "`"
    told = [f"```python\n{_signature(name, found)}\n```", docstring(inspect.getdoc(found) or "")]
    if inspect.isclass(found) and not issubclass(found, BaseModel):
        fields = [f"- `{key}`: {prose(text)}" for key, text in _attributes(found).items()]
        told += ["**Fields**", "\n".join(fields)] if fields else []
        methods = {key: value for key, value in vars(found).items() if not key.startswith("_") and _is_method(value)}
        told += [f"### `{name}.{key}`\n\n{_described(key, _function(value))}" for key, value in methods.items()]
    return "\n\n".join(part for part in told if part)


def _is_method(value: Any) -> bool:
    found = _function(value)
    return (isinstance(found, property) or inspect.isroutine(found)) and bool(found.__doc__)


def _function(value: Any) -> Any:
    return value.__func__ if isinstance(value, classmethod | staticmethod) else value


def _signature(name: str, found: Any) -> str:
    """As it is written, with the annotations of the source; a parameter a line where it is long."""
    if isinstance(found, property):
        return f"{name}: {inspect.signature(found.fget).return_annotation}"
    if inspect.isclass(found) and issubclass(found, BaseModel):
        return _wrapped(name, [f"{key}=..." for key in found.model_fields], "")
    written = inspect.signature(found)
    given = [one for key, one in written.parameters.items() if key not in ("self", "cls")]
    plain = list(map(_parameter, given))
    kinds = [one.kind for one in given]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        plain.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    back = written.return_annotation
    return _wrapped(name, plain, "" if back is inspect.Signature.empty or inspect.isclass(found) else f" -> {back}")


def _wrapped(name: str, parameters: list[str], end: str) -> str:
    line = f"{name}({', '.join(parameters)}){end}"
    return line if len(line) <= 100 else f"{name}(\n" + "".join(f"    {one},\n" for one in parameters) + f"){end}"


def _parameter(one: inspect.Parameter) -> str:
    if not isinstance(one.annotation, str):
        return str(one)
    default = "" if one.default is inspect.Parameter.empty else f" = {one.default!r}"
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}.get(one.kind, "")
    return f"{stars}{one.name}: {one.annotation}{default}"


def _attributes(found: type) -> dict[str, str]:
    """The strings that stand under a class's own fields."""
    body = ast.parse(textwrap.dedent(inspect.getsource(found))).body[0]
    assert isinstance(body, ast.ClassDef)
    pairs = zip(body.body, body.body[1:], strict=False)
    return {
        field.target.id: text.value.value
        for field, text in pairs
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def docstring(text: str) -> str:
    """A docstring in Google's form as Markdown: its sections become lists."""
    parts = re.split(r"^(Args|Raises|Returns|Yields|Attributes):\n", text, flags=re.MULTILINE)
    told = [prose(parts[0])]
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        inside, _, after = body.partition("\n\n")
        entries = re.split(r"^    (?=\S)", inside, flags=re.MULTILINE)[1:]
        listed = [re.sub(r"^([\w*., ]+): ", r"`\1`: ", " ".join(entry.split())) for entry in entries]
        told.append(f"**{title}**\n\n" + "\n".join(f"- {prose(entry)}" for entry in listed))
        told += [prose(textwrap.dedent(after))] if after else []
    return "\n\n".join(told)


def prose(text: str) -> str:
    """A docstring's paragraphs as Markdown: a line each, code in single backquotes, pages as links."""
    one = "\n\n".join(" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text.strip()))
    linked = re.sub(r"``docs/([\w-]+)\.md``", r"[\1](../\1.md)", one)
    return re.sub(r"``(.+?)``", r"`\1`", linked)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # The code beside these pages, whatever is installed.
    sys.exit(main(sys.argv[1:]))
