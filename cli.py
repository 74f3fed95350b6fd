"""The ``ladder`` command: one thin function per verb. Heavy imports happen inside the verbs, so ``--help`` is quick."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from ladder.errors import LadderError, UsageError
from ladder.report.terminal import check_arguments, exit_code, log_of, say_notes, says_all
from ladder.system.stopping import advise, watch

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

PLUGINS = "Of installed packages"


class Verbs(TyperGroup):
    """Ladder's verbs, and those that other packages declare as entry points of the group ``ladder.verbs``.

    Their code is imported when one of them is called, and their metadata is read when one is called or all are listed,
    so ladder's own verbs and ``--help`` pay nothing for them.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        return list(dict.fromkeys([*super().list_commands(ctx), *(entry.name for entry in _plugin_verbs())]))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A plug-in's verb is a line of the help here; ``resolve_command`` loads it."""
        own = super().get_command(ctx, cmd_name)
        found = [] if own else [entry for entry in _plugin_verbs() if entry.name == cmd_name]
        if not found:
            return own
        origin = " and ".join(f"{entry.dist.name} {entry.dist.version}" for entry in found if entry.dist)
        return TyperCommand(cmd_name, help=f"From {origin}.", rich_help_panel=PLUGINS)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None or name in self.commands else _plugin_verb(name), rest


@cache
def _plugin_verbs() -> list[EntryPoint]:
    """Those of installed packages, without importing any."""
    try:
        # Importing what parses metadata takes 30 ms; looking whether there is anything to parse takes 5.
        files = (file for folder in sys.path for file in Path(folder).glob("*.*-info/entry_points.txt"))
        if not any(b"[ladder.verbs]" in file.read_bytes() for file in files):
            return []
        from importlib.metadata import entry_points

        return sorted(entry_points(group="ladder.verbs"), key=lambda entry: entry.name)
    except Exception as error:  # somebody else's files
        print(f"warning: the verbs of installed packages cannot be read: {error!r}", file=sys.stderr)
        return []


def _plugin_verb(name: str) -> Any:
    """The command that a package adds: a function whose parameters say what it takes, as those below.

    Raises:
        ManifestError: it is declared more than once, cannot be imported, or is no function.
    """
    from ladder.manifest.installed import VERBS, load

    function = load(VERBS, name, f"ladder {name}")
    alone = typer.Typer(
        add_completion=False, rich_markup_mode=app.rich_markup_mode, context_settings=app.info.context_settings
    )
    try:
        alone.command(name)(function)
        return typer.main.get_command(alone)
    except Exception as error:
        raise UsageError(f"{function!r:.80} is no verb: {error}", where=f"ladder {name}") from error


app = typer.Typer(
    name="ladder",
    cls=Verbs,
    help="Evolve a language model, generation by generation: train from two frozen teachers, gate, promote, roll back.",
    no_args_is_help=True,
    # Boxes and colours are for terminals; a pipe gets plain text.
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RUN, LOOK, STORE = "Run", "Look", "Store"

_homes: list[Path] = []
"""The home that the command names, for the log of an unexpected error."""


def _remember(home: Path) -> Path:
    _homes.append(home)
    return home


Home = Annotated[
    Path,
    typer.Option(
        "--home",
        envvar="LADDER_HOME",
        help="Where store, runs, cache and locks live.",
        show_default=True,
        callback=_remember,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Manifests = Annotated[list[Path], typer.Argument(metavar="M...", help="Manifests, or folders of them.")]
Ref = Annotated[str, typer.Argument(metavar="REF", help="Luna@HEAD, Luna-G010, Luna-G010.2 or the start of a digest.")]
Family = Annotated[str, typer.Argument(metavar="FAMILY", help="Name of a family, such as Luna.")]
Address = Annotated[str | None, typer.Option("--address", help="Ray cluster to connect to; local Ray when left out.")]
With = Annotated[
    list[str] | None,
    typer.Option("--with", metavar="REF", help="Answers together with it, as an ensemble. May be given several times."),
]
Weights = Annotated[
    str | None, typer.Option("--weights", metavar="W,W", help="Of all members in their order, 0.5,0.5; equal ones.")
]
Mixed = Annotated[
    str | None,
    typer.Option(
        "--pooling", metavar="HOW", help="probabilities: their weighted mean; logits: the log-linear one. The first."
    ),
]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept in the history.")]
HOME = Path(".ladder")


@app.callback()
def _verb() -> None:
    watch()


@app.command(rich_help_panel=RUN)
def init(directory: Annotated[Path, typer.Argument(help="Folder to create.")]) -> None:
    """Create a ready project: manifests, data, laws, README."""
    from ladder.verbs.init import create

    for path in create(directory):
        print(path)


@app.command(rich_help_panel=RUN)
def plan(
    manifests: Manifests,
    home: Home = HOME,
    as_json: Json = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Take one step here, and the times of a run from it.")
    ] = False,
    probe: Annotated[bool, typer.Option("--probe", hidden=True)] = False,
) -> None:
    """Validate everything and print what a run would do and cost. Spends nothing, but for seconds with --measure."""
    from ladder.manifest import read_each

    requests, broken = read_each(manifests)
    if not requests:
        _refuse(broken)
    old = ["plan --probe is now plan --measure; the old word is still read"] if probe else []
    say_notes([*old, *(note for request in requests for note in request.notes)])
    # Torch reads it at its first import; actors wait like this, too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    from ladder.planning.plan import plan_each, plan_text

    plans, refused = plan_each(requests, home, measure=measure or probe)
    if plans:
        _answer([entry.to_dict() for entry in plans], "\n\n".join(map(plan_text, plans)), as_json)
    _refuse([*broken, *refused])


@app.command(rich_help_panel=RUN)
def evolve(
    manifests: Manifests,
    home: Home = HOME,
    address: Address = None,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Train, gate, and promote or archive. Resumes what was cut off, skips what is decided.

    Exit codes: 0 promoted, 1 failed, 2 usage, 3 a gate rejected the child, 4 passed but not promoted; 130 and 143 when
    Ctrl-C or SIGTERM stopped it.
    """
    from ladder.manifest import read_requests

    requests = read_requests(manifests)
    say_notes(note for request in requests for note in request.notes)

    from ladder.evolve import evolve as run
    from ladder.report.console import Console, outcome_text, worst

    outcomes = run(requests, home, Console(quiet=quiet), address)
    _answer([vars(outcome) for outcome in outcomes], outcome_text(outcomes), as_json)
    raise typer.Exit(worst(outcomes))


@app.command(rich_help_panel=RUN)
def submit(
    operands: Annotated[
        list[str], typer.Argument(metavar="M...", help="Manifests, or folders of them; generations for evaluate.")
    ],
    address: Annotated[str, typer.Option("--address", help="Ray dashboard, such as http://127.0.0.1:8265.")],
    home: Home = HOME,
    working_dir: Annotated[Path, typer.Option("--working-dir", help="Folder that travels to the cluster.")] = Path(),
    wait: Annotated[bool, typer.Option(help="Follow the job to its end.")] = True,
    job: Annotated[
        str,
        typer.Option(
            "--job",
            metavar="NAME",
            help="evolve; evaluate (gates of generations once more); warm-cache (teachers read ahead).",
        ),
    ] = "evolve",
) -> None:
    """Run the same evolve as a Ray Job on a cluster, or examine generations again there, or let teachers read ahead."""
    from ladder.verbs.submit import submit as send

    raise typer.Exit(send(operands, address, home, working_dir, wait=wait, job=job))


@app.command("import", rich_help_panel=STORE)
def import_(
    path: Annotated[Path, typer.Argument(help="A Hugging Face folder with safetensors, a .gguf file, or an adapter.")],
    name: Annotated[str, typer.Option("--as", help="Name of the new generation, such as Luna-G000.")],
    probes: Annotated[Path | None, typer.Option(help="Probes that its descendants must still answer.")] = None,
    base: Annotated[
        Path | None, typer.Option("--base", metavar="FOLDER", help="The model that an adapter is merged into.")
    ] = None,
    resize: Annotated[
        bool, typer.Option("--resize", help="Add the rows that the embedding lacks for ids of the tokenizer.")
    ] = False,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Take an existing model in as a generation and make it HEAD."""
    from ladder.manifest import Name

    parsed = Name.parse(name, where="--as")

    from ladder.setup import check_source, import_generation

    check_source(path, base)
    registry, told = _registry(home, create=True), list[str]()
    head = registry.head(parsed.family)
    generation = import_generation(
        registry, path, parsed, parent=head, probes=probes, base=base, resize=resize, say=told.append
    )
    text = "\n".join([*told, f"{generation.ref} is HEAD of {parsed.family} ({generation.digest[:12]})"])
    _answer(generation.to_dict() | {"remarks": told}, text, as_json)


@app.command(rich_help_panel=LOOK)
def lineage(
    family: Family,
    home: Home = HOME,
    as_json: Json = False,
    history: Annotated[bool, typer.Option("--history", help="Also every move of HEAD.")] = False,
) -> None:
    """The family tree with verdicts, gate figures and HEAD."""
    from ladder.report.lineage import history_text, lineage_text

    registry = _registry(home)
    generations, events = registry.generations(family), registry.history(family)
    text = lineage_text(generations) + ("\n\n" + history_text(events) if history else "")
    _answer(
        {"generations": [g.to_dict() for g in generations], "history": [vars(event) for event in events]}, text, as_json
    )


@app.command(rich_help_panel=LOOK)
def show(
    ref: Ref,
    home: Home = HOME,
    as_json: Json = False,
    html: Annotated[bool, typer.Option("--html", help="Open the page of its verdict in a browser.")] = False,
    png: Annotated[
        Path | None, typer.Option("--png", metavar="DIR", help="Write the pictures of its verdict into this folder.")
    ] = None,
) -> None:
    """One generation's card. With --html the page of its verdict: gates, lost answers, laws, who taught; with --png
    its pictures: differences to the parent, the training, and what each of its teachers was worth."""
    from ladder.data import GATES_PLOT, PAGE, TEACHERS_PLOT, TRAINING_PLOT, examined
    from ladder.report.lineage import card_text
    from ladder.report.worth import worth_of, worth_text

    registry = _registry(home)
    generation = registry.find(ref)
    sidecars = registry.sidecars(generation)
    if png:
        further = [plot] if (plot := sidecars / TEACHERS_PLOT).is_file() else []
        copies = _copied([*examined(sidecars, generation.ref, GATES_PLOT, TRAINING_PLOT), *further], png)
        _answer([str(path) for path in copies], "\n".join(map(str, copies)), as_json)
    if html:
        _open_page(*examined(sidecars, generation.ref, PAGE))
    if not (html or png):
        worth = worth_of(sidecars)
        data = generation.to_dict() | ({"receipts": worth} if worth else {})
        _answer(data, card_text(generation, sidecars, worth_text(worth)), as_json)


@app.command(rich_help_panel=LOOK)
def gates(
    ref: Ref,
    against: Annotated[str | None, typer.Option("--against", metavar="REF", help="Held against; its parent.")] = None,
    probes: Annotated[
        Path | None, typer.Option("--probes", help="Asked instead of its own and its ancestors'.")
    ] = None,
    with_: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="REF",
            help="Answers together with the one it is held against, as an ensemble. May be given several times.",
        ),
    ] = None,
    weights: Weights = None,
    pooling: Mixed = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Run a generation's gates again, without consequences. Exit code 3 if one fails.

    With --with it is held against an ensemble, such as its teachers together, and a table says what both score and
    cost.
    """
    registry = _registry(home)
    child, other = registry.find(ref), registry.find(against) if against else None
    together = _together(registry, with_, weights, pooling)

    from ladder.verbs.compare import reevaluate

    found = reevaluate(registry, child, other, probes, together=together)
    _answer(found.to_dict(), found.to_text(), as_json)
    raise typer.Exit(0 if found.report.passed else 3)


@app.command(rich_help_panel=LOOK)
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A generation, as for show.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    answers: Annotated[bool, typer.Option(help="Let both answer B's probes.")] = True,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Two generations side by side: manifests, gates, how far the weights moved, and what B lost and gained."""
    registry = _registry(home)
    first, second = registry.find(a), registry.find(b)

    from ladder.verbs.compare import difference, difference_text, reevaluate

    found = difference(registry, first, second)
    compared = reevaluate(registry, second, first).comparison if answers else None
    data = found.to_dict() | {"answers": asdict(compared) if compared else None}
    _answer(data, difference_text(found, compared), as_json)


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
    registry = _registry(home)
    generation = registry.rollback(family, to=registry.find(to) if to else None, reason=reason)
    _answer(generation.to_dict(), f"HEAD of {family} is {generation.ref}", as_json)


@app.command(rich_help_panel=STORE)
def promote(
    ref: Ref,
    reason: Reason = "promoted by hand",
    key: Annotated[str | None, typer.Option("--key", help="Who approves, where laws.approvals asks for it.")] = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Make a generation that passed its gates HEAD, or approve it. Exit code 4 while approvals are missing."""
    registry = _registry(home)
    chosen = registry.find(ref)
    generation = registry.promote(chosen, expected=registry.head(chosen.name.family), reason=reason, key=key)
    waits = f"{generation.ref} is approved by {key}; it becomes HEAD with {generation.approvals} different keys"
    text = f"HEAD of {generation.name.family} is {generation.ref}" if generation.is_head else waits
    _answer(generation.to_dict(), text, as_json)
    raise typer.Exit(0 if generation.is_head else 4)


@app.command(rich_help_panel=STORE)
def verify(family: Family, home: Home = HOME, as_json: Json = False) -> None:
    """Check every generation's content against its digests. Exit code 1 if anything is wrong."""
    registry = _registry(home)
    findings = registry.verify(family)
    count = len(registry.generations(family))
    text = "\n".join(f"{f.ref}: {f.problem}" for f in findings) or f"{family} is clean: {count} generations verified"
    _answer([vars(finding) for finding in findings], text, as_json)
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

    registry = _registry(home)
    found = registry.prune(family, caches=caches) if yes else registry.survey(family, caches=caches)
    _answer(found.to_dict() | {"removed": yes}, pruning_text(found, removed=yes), as_json)


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

    registry, traces = _registry(home), Traces.read(rows)
    found = registry.erase(family, traces, reason=reason) if yes else registry.traces(family, traces)
    _answer(found.to_dict() | {"removed": yes}, erasure_text(found, removed=yes), as_json)


@app.command(rich_help_panel=STORE)
def backup(
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE", help="File to create, such as luna.tar.")],
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Write all families of a home to one file, with a digest of everything. Not in it: cut-off runs, caches."""
    from ladder.report.lineage import contents_text

    contents = _registry(home).backup(archive)
    _answer(contents.model_dump(mode="json"), contents_text(contents, f"wrote {archive}"), as_json)


@app.command(rich_help_panel=STORE)
def restore(
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE", help="File that backup wrote.")],
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Bring a backup into a home that holds no store yet, and verify it."""
    from ladder.registry.backup import restore as bring_back
    from ladder.report.lineage import contents_text

    contents = bring_back(archive, home)
    _answer(contents.model_dump(mode="json"), contents_text(contents, f"restored and verified in {home}"), as_json)


@app.command(rich_help_panel=LOOK)
def sample(
    ref: Ref,
    prompt: Annotated[list[str], typer.Argument(help="What to continue, or a user's turn with --chat.")],
    chat: Annotated[bool, typer.Option("--chat", help="Put each prompt through the chat template.")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 48,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 answers greedily.")] = 0.0,
    seed: int = 0,
    with_: With = None,
    weights: Weights = None,
    pooling: Mixed = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Let a generation answer prompts, or several together with --with."""
    registry = _registry(home)
    generation, together = registry.find(ref), _together(registry, with_, weights, pooling)

    from ladder.verbs.sample import answer
    from ladder.verbs.together import ensemble_of

    answers = answer(ensemble_of(registry, generation, together), prompt, chat, max_new_tokens, temperature, seed)
    pairs = [{"prompt": asked, "answer": said} for asked, said in zip(prompt, answers, strict=True)]
    _answer(pairs, "\n".join(answers), as_json)


@app.command(rich_help_panel=LOOK)
def counts(
    ref: Ref,
    corpus: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Rows, or texts with an empty line between documents.")
    ],
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", help="Continue this instead. May be given several times.")
    ] = None,
    mode: Annotated[str, typer.Option("--mode", help="bigram, trigram, cooccur or blend.")] = "trigram",
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 48,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 continues greedily.")] = 0.0,
    seed: int = 0,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """What counts of a corpus reach without a model: the floor of a generation's probes, or text with --prompt."""
    from ladder.exam import Prompt
    from ladder.verbs.counts import Counting, counted_by, floor, floor_text

    registry = _registry(home)
    generation, how = registry.find(ref), counted_by(mode)
    if not prompt:
        floors = floor(registry, generation, corpus, how)
        _answer([one.to_dict() for one in floors], floor_text(floors), as_json)
        return
    counting = Counting(registry.materialize(generation), corpus, how)
    answers = [counting.answer(Prompt(text), max_new_tokens, (), temperature, seed) for text in prompt]
    pairs = [{"prompt": asked, "answer": said} for asked, said in zip(prompt, answers, strict=True)]
    _answer(pairs, "\n".join(answers), as_json)


@app.command("eval", rich_help_panel=LOOK)
def eval_(
    ref: Ref,
    results: Annotated[
        Path | None, typer.Option("--results", help="Results of lm-evaluation-harness, to attach to the generation.")
    ] = None,
    with_: With = None,
    weights: Weights = None,
    pooling: Mixed = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Ask a generation its own and its ancestors' probes again, alone or with others as an ensemble; or attach what
    another suite found of it."""
    if results is not None and with_:
        raise UsageError("results are of one generation", where="--with", remedy="leave --with or --results out")
    registry = _registry(home)
    generation, together = registry.find(ref), _together(registry, with_, weights, pooling)

    from ladder.verbs.evaluate import asked_text, attach, attached_text, reask

    if results is None:
        asked = reask(registry, generation, together)
        _answer([one.to_dict() for one in asked], asked_text(asked), as_json)
        return
    attached = attach(registry, generation, results)
    _answer(attached.to_dict(), attached_text(attached), as_json)


@app.command(rich_help_panel=STORE)
def export(ref: Ref, directory: Annotated[Path, typer.Argument(help="Folder to create.")], home: Home = HOME) -> None:
    """Write a plain ``from_pretrained`` folder with its model card."""
    from ladder.verbs.export import export_generation

    registry = _registry(home)
    print(export_generation(registry, registry.find(ref), directory))


@app.command(rich_help_panel=LOOK)
def schema() -> None:
    """The JSON Schema of manifests, for editors."""
    from ladder.manifest import json_schema

    print(json.dumps(json_schema(), indent=2))


@app.command(rich_help_panel=LOOK)
def ui(home: Home = HOME, port: Annotated[int, typer.Option(min=1, max=65535)] = 5000) -> None:
    """Open MLflow's UI on this home's store, on loopback."""
    from ladder.verbs.ui import serve

    raise typer.Exit(serve(home, port))


@app.command(rich_help_panel=LOOK)
def doctor(home: Home = HOME, as_json: Json = False) -> None:
    """What is installed, what this machine can run, what is wrong and how to fix it."""
    from ladder.verbs.doctor import examine

    checks = examine(home)
    text = "\n".join(f"{'ok   ' if check.ok else 'WRONG'} {check.name}: {check.found}" for check in checks)
    _answer([vars(check) for check in checks], text, as_json)
    raise typer.Exit(0 if all(check.ok for check in checks) else 1)


def main() -> int:
    """Run the command line: every error becomes one message and an exit code.

    Raises:
        Interrupted, KeyboardInterrupt: it was told to stop; ``ladder.system.stopping`` has the last word.
    """
    return exit_code(_run, lambda: log_of(_homes[-1] if _homes else None))


def _run() -> int:
    check_arguments()
    app()
    return 0


def _registry(home: Path, *, create: bool = False) -> Any:
    from ladder.registry import open_registry

    return open_registry(home, create=create)


def _together(registry: Any, others: list[str] | None, weights: str | None, pooling: str | None) -> Any:
    """Who answers with a generation; None for nobody."""
    if not others and weights is None and pooling is None:
        return None
    from ladder.verbs.together import Together

    return Together.of(registry, others or (), weights, pooling)


def _refuse(errors: Sequence[LadderError]) -> None:
    """End with the worst of some errors, after the others were printed."""
    if errors:
        from ladder.report.console import worst

        code = worst(errors)
        last = next(error for error in errors if error.exit_code == code)
        for error in errors:
            if error is not last:
                print(f"ladder: {error}", file=sys.stderr)
        raise last


def _open_page(path: Path) -> None:
    """Print where a page lies, and on a terminal open it."""
    import webbrowser

    print(path)
    if sys.stdout.isatty():
        webbrowser.open(path.resolve().as_uri())


def _copied(paths: list[Path], directory: Path) -> list[Path]:
    """The copies of files in a folder, which is created; files of the same names are replaced."""
    import shutil

    if directory.exists() and not directory.is_dir():
        raise UsageError("is a file, expected a folder", where=str(directory), remedy="name a folder after --png")
    directory.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(path, directory / path.name)) for path in paths]


def _answer(data: Any, text: str, as_json: bool) -> None:
    ascii_only = not says_all(sys.stdout)
    print(json.dumps(data, indent=2, ensure_ascii=ascii_only, default=str) if as_json else text)
