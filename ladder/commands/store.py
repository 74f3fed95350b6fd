"""Verbs that change what a home keeps."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ladder.commands.answers import answer, at_work, registry_of, tell_others
from ladder.commands.app import STORE, app
from ladder.commands.options import HOME, Family, Home, Json, Reason, Ref
from ladder.errors import UsageError
from ladder.system.stopping import advise


@app.command("import", rich_help_panel=STORE)
def import_(
    path: Annotated[Path, typer.Argument(help="A Hugging Face folder with safetensors, a .gguf file, or an adapter.")],
    name: Annotated[str, typer.Option("--as", help="Name of the new generation, such as Luna-G000.")],
    probes: Annotated[
        Path | None, typer.Option(help="Probes that it is asked, and that its descendants must still answer.")
    ] = None,
    laws: Annotated[
        Path | None,
        typer.Option("--laws", metavar="FILE", help="The sections gates and laws of a manifest, which it is held to."),
    ] = None,
    base: Annotated[
        Path | None, typer.Option("--base", metavar="FOLDER", help="The model that an adapter is merged into.")
    ] = None,
    resize: Annotated[
        bool, typer.Option("--resize", help="Add the rows that the embedding lacks for ids of the tokenizer.")
    ] = False,
    exam: Annotated[
        bool, typer.Option("--exam/--no-exam", help="Examine it; one that is not has neither report nor card.")
    ] = True,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Take an existing model in as a generation, examine it, and make it HEAD. Exit code 3 if its own laws or gates
    refuse it."""
    if laws is not None and not exam:
        raise UsageError("laws without an exam judge nothing", where="--no-exam", remedy="leave one of the two out")

    from ladder.manifest import Name

    parsed = Name.parse(name, where="--as")

    from ladder.models.source import check_path

    check_path(path)  # Before what imports torch, and says it, too.

    from ladder.report.console import Console
    from ladder.report.live import SOON
    from ladder.setup import check_source, import_generation
    from ladder.verbs.adopt import next_step

    check_source(path, base)
    registry, told = registry_of(home, create=True), list[str]()
    head, console = registry.head(parsed.family), Console()
    with console.working(f"importing {path.name or path}", after=SOON):
        generation = import_generation(
            registry,
            path,
            parsed,
            parent=head,
            probes=probes,
            base=base,
            resize=resize,
            laws=laws,
            exam=exam,
            say=told.append,
            phase=lambda phase: print(f"ladder: {phase}", file=sys.stderr, flush=True),
            console=console,
        )
    tell_others(registry)
    became = f"HEAD of {parsed.family}" if generation.is_head else f"{generation.verdict}, and HEAD stays"
    text = "\n".join([*told, f"{generation.ref} is {became} ({generation.digest[:12]})", next_step(generation, Path())])
    answer({"generation": generation.to_dict()}, text, as_json, notes=told)
    raise typer.Exit(0 if generation.is_head else 3)


@app.command(rich_help_panel=STORE)
def rollback(
    family: Family,
    to: Annotated[
        str | None, typer.Option("--to", help="A promoted generation; HEAD's promoted parent when left out.")
    ] = None,
    reason: Reason = "rolled back by hand",
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Move HEAD back to a generation that was promoted before."""
    advise("HEAD is where it was or where you wanted it: see `ladder lineage` before you repeat this")
    registry = registry_of(home)
    generation = registry.rollback(family, to=registry.find(to) if to else None, reason=reason)
    tell_others(registry)
    answer({"generation": generation.to_dict()}, f"HEAD of {family} is {generation.ref}", as_json)


@app.command(rich_help_panel=STORE)
def promote(
    ref: Ref,
    reason: Reason = "promoted by hand",
    key: Annotated[str | None, typer.Option("--key", help="Who approves, where laws.approvals asks for it.")] = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Make a generation that passed its gates HEAD, or approve it. Exit code 4 while approvals are missing."""
    registry = registry_of(home)
    chosen = registry.find(ref)
    head = registry.head(chosen.name.family)
    generation = registry.promote(chosen, expected=head, reason=reason, key=key)
    tell_others(registry)
    already = " already; nothing was moved" if head and head.version == chosen.version else ""
    waits = f"{generation.ref} is approved by {key}; it becomes HEAD with {generation.approvals} different keys"
    text = f"HEAD of {generation.name.family} is {generation.ref}{already}" if generation.is_head else waits
    answer({"generation": generation.to_dict()}, text, as_json)
    raise typer.Exit(0 if generation.is_head else 4)


@app.command(rich_help_panel=STORE)
def verify(family: Family, home: Home = HOME, as_json: Json = False) -> None:
    """Check every generation's content against its digests. Exit code 1 if anything is wrong."""
    registry = registry_of(home)
    with at_work(f"verifying {family}"):
        findings = registry.verify(family)
    count = len(registry.generations(family))
    text = "\n".join(f"{f.ref}: {f.problem}" for f in findings) or f"{family} is clean: {count} generations verified"
    found = {"family": family, "generations": count, "findings": [vars(finding) for finding in findings]}
    answer(found, text, as_json)
    raise typer.Exit(1 if findings else 0)


@app.command(rich_help_panel=STORE)
def prune(
    family: Family,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without, only say what would go.")] = False,
    caches: Annotated[bool, typer.Option(help="Also the home's caches, which are built again when needed.")] = True,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Remove the weights of rejected generations, finished runs and caches. Says what would go, removes with --yes.

    HEAD, its ancestors, and whatever was promoted or waits for it stay. Of the others, all but the weights stays.
    """
    from ladder.report.lineage import pruning_text

    registry = registry_of(home)
    with at_work(f"looking through {family}"):
        found = registry.prune(family, caches=caches) if yes else registry.survey(family, caches=caches)
    answer(found.to_dict() | {"removed": yes}, pruning_text(found, removed=yes), as_json)


@app.command(rich_help_panel=STORE)
def erase(
    family: Family,
    rows: Annotated[Path, typer.Option("--rows", help="JSONL file with all rows of the person, as in data.train.")],
    reason: Annotated[
        str, typer.Option("--reason", help="Why, such as the number of a request; it is kept, so name nobody.")
    ] = "asked for",
    yes: Annotated[bool, typer.Option("--yes", help="Erase them; without, only say where they are.")] = False,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Say where a person's rows stand in what a family keeps (replay samples, probes, dreams, reports, caches), and
    which generations learned from them. With --yes take them out.

    The weights keep what they learned. Digests of the rows stay, so that descendants refuse them, and an entry in the
    history. Other families of the home need a command each.
    """
    from ladder.registry.redaction import Traces
    from ladder.report.lineage import erasure_text

    registry, traces = registry_of(home), Traces.read(rows)
    with at_work(f"looking through {family}"):
        found = registry.erase(family, traces, reason=reason) if yes else registry.traces(family, traces)
    answer(found.to_dict() | {"removed": yes}, erasure_text(found, removed=yes), as_json)


@app.command(rich_help_panel=STORE)
def backup(
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE", help="File to create, such as luna.tar.")],
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Write all families of a home to one file, with a digest of everything. Not in it: cut-off runs, caches."""
    from ladder.report.lineage import contents_text

    with at_work(f"writing {archive}"):
        contents = registry_of(home).backup(archive)
    text = contents_text(contents, f"wrote {archive}")
    answer({"archive": str(archive), "contents": contents.model_dump(mode="json")}, text, as_json)


@app.command(rich_help_panel=STORE)
def restore(
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE", help="File that backup wrote.")],
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Bring a backup into a home that holds no store yet, and verify it."""
    from ladder.registry.backup import restore as bring_back
    from ladder.report.lineage import contents_text

    with at_work(f"restoring {archive}"):
        contents = bring_back(archive, home)
    text = contents_text(contents, f"restored and verified in {home}")
    answer({"home": str(home), "contents": contents.model_dump(mode="json")}, text, as_json)


@app.command(rich_help_panel=STORE)
def export(
    ref: Ref,
    directory: Annotated[Path, typer.Argument(help="Folder to create.")],
    rows: Annotated[
        bool, typer.Option("--with-rows", help="Also its replay sample and dreams, which hold rows.")
    ] = False,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Write a plain ``from_pretrained`` folder with its model card, and without the rows it keeps for descendants. Its
    probes travel along: `ladder import` examines a model by them."""
    from ladder.verbs.export import export_generation

    registry = registry_of(home)
    generation = registry.find(ref)
    with at_work(f"exporting {ref}"):
        folder = export_generation(registry, generation, directory, rows=rows)
    found = {"generation": generation.to_dict(), "folder": str(folder), "rows": rows}
    answer(found, str(folder), as_json)
