"""The Typer application: ladder's own verbs and those of installed packages."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from ladder import __version__
from ladder.commands.answers import Call, calls
from ladder.errors import UsageError
from ladder.system import patience
from ladder.system.stopping import watch

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

PANELS = RUN, LOOK, STORE = "Run", "Look", "Store"
PLUGINS = "Of installed packages"


class Verbs(TyperGroup):
    """Ladder's verbs, and those that other packages declare as entry points of the group ``ladder.verbs``.

    Their code is imported when one of them is called, and their metadata is read when one is called or all are listed,
    so ladder's own verbs and ``--help`` pay nothing for them.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        panels = {name: PANELS.index(cast(Any, command).rich_help_panel) for name, command in self.commands.items()}
        own = sorted(panels, key=panels.__getitem__)
        return list(dict.fromkeys([*own, *(entry.name for entry in _plugin_verbs())]))

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


def _say_version(asked: bool) -> None:
    if asked:
        print(f"ladder {__version__}")
        raise typer.Exit()


_TELL_THEMSELVES = ("ui", "submit", "watch")
"""Verbs that go on for long and print what others say."""


@app.callback()
def _verb(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", "-V", is_eager=True, callback=_say_version, help="Print ladder's version.")
    ] = False,
) -> None:
    calls.append(Call())
    watch()
    if context.invoked_subcommand not in _TELL_THEMSELVES:
        patience.begin(f"{context.invoked_subcommand} is at work")
        context.call_on_close(patience.end)


def group(name: str, panel: str, told: str) -> typer.Typer:
    """A verb with verbs of its own, such as ``data``: each says which it is in its sign of life.

    Args:
        panel: of ``ladder --help``, and ``told`` what stands there.
    """
    made = typer.Typer(
        name=name,
        help=told,
        no_args_is_help=True,
        rich_markup_mode=app.rich_markup_mode,
        context_settings=app.info.context_settings,
    )
    made.callback()(_say_which)
    app.add_typer(made, rich_help_panel=panel)
    return made


def _say_which(context: typer.Context) -> None:
    if context.invoked_subcommand:
        patience.begin(f"{context.info_name} {context.invoked_subcommand} is at work")
