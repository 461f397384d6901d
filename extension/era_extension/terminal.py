"""Tables in a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from .views import Table

# Wide enough for any row: in a file or a pipe nothing need fold.
PIPED_WIDTH = 200


def show_table(table: Table) -> None:
    """Print a table; cells fold where the terminal is narrow, and none is cut."""
    console = Console()
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(table.head):
        shown.add_column(name, overflow="fold", no_wrap=i == 0)
    for row in table.rows:
        # Text, because a string could hold markup.
        shown.add_row(*(Text(cell) for cell in row))
    console.print(shown)
