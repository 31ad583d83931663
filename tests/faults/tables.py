"""Tables of the figures that the tests of this folder collect; they are printed at the end."""

import datetime
import os
import platform
from pathlib import Path

#: Name of a file for the tables, in Markdown.
FIGURES = os.environ.get("FIGURES", "")


def add_row(record_property, name, **row):
    """Adds a row to a table with pytest's ``record_property`` of a test."""
    record_property(f"table {name}", row)


def pytest_terminal_summary(terminalreporter):
    """Prints the tables."""
    tables = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, row in getattr(report, "user_properties", ()):
                if name.startswith("table ") and report.when == "call":
                    tables.setdefault(name[len("table ") :], []).append(row)
    if not tables:
        return
    text = machine() + "".join(markdown(name, rows) for name, rows in sorted(tables.items()))
    terminalreporter.write_line(text)
    if FIGURES:
        Path(FIGURES).write_text(text)


def machine():
    """Returns the machine and the date of the figures."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":")[1].strip()
            break
    return f"{model}, {os.cpu_count()} cores, {datetime.date.today().isoformat()}\n"


def markdown(name, rows):
    """Returns a table; if there are several rows, with the sums of the numbers."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    lines = [names, ["---"] * len(names)]
    lines += [[show(row.get(key, "")) for key in names] for row in rows]
    if len(rows) > 1:
        lines.append([total(key, rows) for key in names])
    body = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
    return f"\n{name}\n\n{body}\n"


def show(value):
    """Returns the text of a cell."""
    return f"{value:,}" if isinstance(value, int) else str(value)


def total(key, rows):
    """Returns the last cell of a column: the sum, or the maximum if a sum has no meaning."""
    values = [row.get(key, 0) for row in rows]
    if key == "seed" or not all(isinstance(value, int) for value in values):
        return "in all" if key == next(iter(rows[0])) else ""
    return show(max(values) if "peak" in key else sum(values))
