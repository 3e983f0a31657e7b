"""What `tickpath doctor` tells a person."""

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from tools.checkup import ADVICE, OK, PROBLEM, UNKNOWN

STYLES = {PROBLEM: "bold red", ADVICE: "yellow", UNKNOWN: "cyan", OK: "green"}


def report(result: dict[str, Any]) -> Group:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for check in result["checks"]:
        if check["state"] == OK:
            continue
        table.add_row(Text(check["state"], style=STYLES[check["state"]]), check["name"], check["found"])
        if check["state"] != UNKNOWN or check["essential"]:
            labels = (("costs", ""), ("danger", "danger: "), ("cure", "cure: "))
            for line in (Text(label, style="dim").append(check[key]) for key, label in labels if check[key]):
                table.add_row("", "", line)
    table.add_row("", "", "")
    table.add_row(Text(OK, style=STYLES[OK]), "", ", ".join(check["name"] for check in result["checks"] if check["state"] == OK))
    if result["left_alone"]:
        table.add_row("left alone", "", f"by the profile, or nothing to set: {', '.join(result['left_alone'])}")
    for sentence in result["warnings"]:
        table.add_row("warning", "", sentence)
    counts = ", ".join(f"{count} {state}" for state, count in result["counts"].items())
    verdict = "fit" if result["fit"] else "NOT fit: a problem above, or something essential that cannot be read"
    return Group(table, "", Text(f"{verdict} ({counts})", style="bold green" if result["fit"] else "bold red"))
