"""The `tickpath risk` commands: what they take and what they print; tools/risk.py does it."""

from collections.abc import Callable
from typing import Any

import click

from tools.explained import explained, print_json

Command = Callable[..., Any]

STATES = ("active", "reducing", "halted")


@click.group()
def risk() -> None:
    """Show the limits that orders are held to, and change them while an instance runs."""


def on_instance(command: Command) -> Command:
    return click.option("--instance", default="tickpath", show_default=True)(command)


def answerable(command: Command) -> Command:
    """Whoever decides is named and says why; both are kept in the log."""
    command = click.option("--reason", required=True, metavar="TEXT", help="Why: kept in the log.")(command)
    return click.option("--by", required=True, metavar="NAME", help="Who decides this: kept in the log.")(on_instance(command))


def lasting(command: Command) -> Command:
    """An override: it ends by itself, and takes a second person."""
    command = click.option("--second", default="", metavar="NAME", help="With --for: the second person who answers for it.")(command)
    return click.option("--for", "minutes", type=click.FloatRange(0, 1440, min_open=True), help="For so many minutes only.")(command)


def checked(minutes: float | None, second: str) -> Any:
    """The override asked for, or None. ValueError where only half of it was said."""
    from tools.risk import For

    if minutes is None:
        if second:
            raise ValueError(f"--second={second!r}: expected only with --for MINUTES: what holds for good is one person's decision")
        return None
    return For(minutes, second)


@risk.command()
@on_instance
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@explained
def show(instance: str, as_json: bool) -> None:
    """The limits in force, the state, and what the gate refused so far."""
    from tools import risk as risks

    described = risks.describe(instance)
    if as_json:
        print_json(described)
        return
    disabled = described["disabled"]
    absent = "" if described["running"] else " from its next start (it does not run: the limits are those of its config, but for these)"
    click.echo(f"{instance}: {described['state'].upper()}{absent}" + (f", strategies disabled: {disabled}" if disabled else ""))
    for told in described["killed"]:
        click.echo(f"  KILLED {told}")
    for name, value in described["limits"].items():
        made = described["changed"].get(name)
        told = f"   (configured {made['before']}; {made['by']}, {made['at']}: {made['reason']})" if made else ""
        if made and made["until_s"]:
            told = f"   (for a while instead of {made['before']}; {made['by']} and {made['second']}, {made['at']}: {made['reason']})"
        click.echo(f"  {name:<24}{','.join(value) or 'none' if isinstance(value, list) else value}{told}")
    for sentence, count in described.get("verdicts", {}).items():
        click.echo(f"{count:>12,}  {sentence}")


@risk.command("set")
@click.argument("limit")
@click.argument("value")
@answerable
@lasting
@explained
def set_limit(limit: str, value: str, instance: str, by: str, reason: str, minutes: float | None, second: str) -> None:
    """Change LIMIT to VALUE ("config" takes a change back). It holds at once, and after a restart too; with --for it ends by itself."""
    from tools import risk as risks

    click.echo(risks.set_limit(instance, limit, value, by, reason, checked(minutes, second)))


@risk.command()
@click.argument("state", type=click.Choice(STATES))
@answerable
@lasting
@explained
def state(state: str, instance: str, by: str, reason: str, minutes: float | None, second: str) -> None:
    """ACTIVE: all that passes the limits. REDUCING: only what reduces a position. HALTED: only cancels."""
    from tools import risk as risks

    click.echo(risks.set_state(instance, state, by, reason, checked(minutes, second)))


@risk.command()
@click.argument("strategy", type=click.IntRange(0, 63))
@answerable
@explained
def enable(strategy: int, instance: str, by: str, reason: str) -> None:
    """Let STRATEGY, which fired too often, send orders again."""
    from tools import risk as risks

    click.echo(risks.enable(instance, strategy, by, reason))


@risk.command()
@on_instance
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
@explained
def log(instance: str, as_json: bool) -> None:
    """Every decision there ever was about an instance's risk, oldest first."""
    import msgspec

    from engine.runtime import standing

    for made in standing.decisions(instance):
        if as_json:
            click.echo(msgspec.json.encode(made).decode())
        else:
            by = f"{made.by} and {made.second}" if made.second else made.by
            click.echo(f"{made.at}  {by} ({made.user}): {made.what}: {made.before} -> {made.value}: {made.reason}")
