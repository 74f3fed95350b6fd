"""``ladder watch`` as a screen of its own, with textual: the runs, how the chosen one goes, and its log. It only reads,
so leaving it stops nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from textwrap import wrap
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.events import Resize
from textual.widgets import DataTable, Footer, Static

from ladder.report.live import seconds_text
from ladder.report.text import size_text
from ladder.verbs.watched import Watched, Watcher, left_of

EVERY = 1.0
"""Seconds between two looks."""
WIDE = 130
"""Columns from which on the log stands beside the run instead of below it."""
LINES = 300
"""Of a log that can be scrolled to."""
_BLOCKS = " ▁▂▃▄▅▆▇█"
_STATES = {
    "running": "bold cyan",
    "PROMOTED": "green",
    "PASSED": "yellow",
    "REJECTED": "red",
    "cut off": "yellow",
    "passed": "green",
    "failed": "bold red",
}
_ROUTES = {
    "gold": "yellow",
    "blended": "blue",
    "teacher1": "bright_blue",
    "teacher2": "cyan",
    "dream": "magenta",
    "written": "bright_magenta",
    "skip": "bright_black",
}


class WatchScreen(App[None]):
    """The runs of a home, looked at every second."""

    TITLE = "ladder watch"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "leave; nothing stops    ↑↓ choose a run    Tab log"),
    ]
    CSS = """
    #title { height: 1; background: $primary; color: $text; padding: 0 1; }
    #body { layout: vertical; height: 1fr; }
    #body.wide { layout: horizontal; }
    #left { height: auto; } .wide #left { width: 60%; height: 1fr; }
    #runs { height: auto; max-height: 4; } .wide #runs { max-height: 12; }
    #run { height: auto; padding: 0 1; }
    #log { height: 1fr; padding: 0 1; border-top: solid $primary; } #log:focus { border-top: solid $accent; }
    .wide #log { border-top: none; border-left: solid $primary; }
    """

    def __init__(self, watcher: Watcher, title: str) -> None:
        super().__init__()
        self.watcher, self.told = watcher, title
        self.found: list[Watched] = []
        self.chosen: str | None = None
        self.follows = True
        """Whether the first run is shown, whichever that is: until somebody chooses another one."""

    def compose(self) -> ComposeResult:
        yield Static(self.told, id="title", markup=False)
        with Container(id="body"):
            with Vertical(id="left"):
                yield DataTable(id="runs", cursor_type="row")
                yield Static(id="run", markup=False)
            with VerticalScroll(id="log"):
                yield Static(id="lines", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        table = self.query_one("#runs", DataTable)
        for name, width in (("run", 27), ("state", 9), ("step", 11), ("loss", 7), ("left", 11)):
            table.add_column(name, width=width, key=name)
        table.focus()
        self.look()
        self.set_interval(EVERY, self.look)

    def on_resize(self, event: Resize) -> None:
        self.query_one("#body").set_class(event.size.width >= WIDE, "wide")
        self.call_after_refresh(self.draw)

    def look(self) -> None:
        """Read what the runs tell of themselves now, and show it."""
        self.found = self.watcher.look()
        self.draw()

    def draw(self) -> None:
        """Show what was read last."""
        table = self.query_one("#runs", DataTable)
        names = [one.name for one in self.found]
        if [key.value for key in table.rows] != names:
            table.clear()
            for one in self.found:
                table.add_row(*run_cells(one), key=one.name)
            chosen = names.index(self.chosen) if self.chosen in names and not self.follows else 0
            table.move_cursor(row=chosen)
        else:
            for one in self.found:
                for column, cell in zip(table.columns, run_cells(one), strict=True):
                    table.update_cell(one.name, column, cell)
        self.show_run()

    def show_run(self) -> None:
        """The chosen run, and its log with the newest line at the end."""
        run = next((one for one in self.found if one.name == self.chosen), self.found[0] if self.found else None)
        shown, log = self.query_one("#run", Static), self.query_one("#log", VerticalScroll)
        if run is None:
            shown.update("no runs yet: ladder evolve begins one")
            return
        shown.update(run_text(run, max(20, self.query_one("#left").size.width - 2)))
        self.query_one("#lines", Static).update(log_text(run.log[-LINES:], log.size.width - 4))
        if not log.has_focus:
            log.scroll_end(animate=False)

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        if event.row_key is not None:
            self.chosen, self.follows = event.row_key.value, event.cursor_row == 0
            self.show_run()


def run_cells(run: Watched) -> tuple[Text, ...]:
    """A run's line in the table."""
    step = f"{run.step}/{run.steps}" if run.steps else ""
    loss = f"{run.loss:.4f}" if run.loss is not None else ""
    return (
        Text(run.name[:27]),
        Text(run.state, style=_STATES.get(run.state, "")),
        Text(step, justify="right"),
        Text(loss, justify="right"),
        Text(left_of(run), justify="right"),
    )


def run_text(run: Watched, width: int) -> Text:
    """How one run goes: progress, loss and calibration as curves, routes, wire, memory, and its gates."""
    doing = run.doing.removeprefix(f"{run.child} ")
    # The bar below says where a training is.
    lines = [Text(f"{run.child} ", style="bold").append("trains" if doing.startswith("step ") else doing, "not bold")]
    if run.steps:
        lines.append(_progress(run, width))
    for name, value, past in (("loss", run.loss, run.losses), ("calibration", run.ece, run.eces)):
        if value is not None:
            figure = f"{name:12}{value:<9.4f}"
            lines.append(Text(figure).append(sparkline(past, width - len(figure)), style="cyan"))
    if run.routes:
        lines.append(_routes(run.routes, width))
    wire = f"{size_text(run.wire_bytes)} from teachers" if run.wire_bytes else ""
    memory = ", ".join(f"{who} {size_text(size)}" for who, size in run.memory_bytes.items())
    lines += [Text(f"{name:12}{said}") for name, said in (("wire", wire), ("memory", memory)) if said]
    for gate in run.gates:
        lines.append(_gate(gate))
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return Text("\n").join(lines)


def _progress(run: Watched, width: int) -> Text:
    """A bar of the steps, with speed and time left."""
    done, steps = run.step or 0, run.steps or 1
    speed = f"  {run.tokens_a_second:,.0f} tok/s" if run.tokens_a_second else ""
    left = f"  {seconds_text(run.left)} left" if run.left else ""
    said = f" {done}/{steps} {done / steps:.0%}{speed}{left}"
    room = max(4, width - 12 - len(said))
    full = round(room * done / steps)
    return Text("steps       ").append("━" * full, style="green").append("─" * (room - full), style="dim").append(said)


def _routes(routes: Mapping[str, float], width: int) -> Text:
    """Who taught, as a bar and in per cent."""
    said = "  " + ", ".join(f"{name} {share:.0%}" for name, share in routes.items())
    room = max(4, width - 12 - len(said))
    bar = Text("routes      ")
    for name, share in routes.items():
        bar.append("█" * round(room * share), style=_ROUTES.get(name, "white"))
    return bar.append(said)


def _gate(gate: Mapping[str, str]) -> Text:
    """One gate that is decided."""
    mark = {"passed": "✓ passed", "failed": "✗ failed"}.get(gate["state"], gate["state"])
    text = Text(f"{gate['name']:12}").append(f"{mark:10}", style=_STATES.get(gate["state"], "dim"))
    return text.append(f" {gate['said']}")


def sparkline(values: Sequence[float], width: int) -> str:
    """Values as a line of blocks, the first at the left; of many each block is the mean of a stretch."""
    if not values or width < 1:
        return ""
    count = min(width, len(values))
    edges = [round(place * len(values) / count) for place in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(0.0, *means), max(means)
    return "".join(_BLOCKS[1 + min(7, int(8 * (mean - low) / ((high - low) or 1.0)))] for mean in means)


def log_text(lines: Sequence[str], width: int) -> Text:
    """Lines of a log, each with its time, folded to a width; the newest is at the end."""
    shown: list[Text] = []
    for line in lines:
        time, said = line[11:19], line[20:]
        style = "red" if said.startswith(("FAILED", "failed")) else "green" if said.startswith("passed ") else ""
        pieces = wrap(said, max(10, width - 9)) or [""]
        shown += [
            Text(f"{time if not number else '':9}", style="dim").append(piece, style=f"not dim {style}")
            for number, piece in enumerate(pieces)
        ]
    return Text("\n").join(shown)
