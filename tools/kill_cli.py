"""The `tickpath kill` and `tickpath arm` commands: what they take and what they print; tools/killswitch.py does it."""

from collections.abc import Callable
from typing import Any

import click

from tools.explained import explained

Command = Callable[..., Any]


def scoped(command: Command) -> Command:
    """What of the instance is meant. Nothing named: all of it. Several named: the orders that are of all of them."""
    command = click.option("--venue", default="", metavar="MIC", help="Only orders for this venue (gateway.venue).")(command)
    command = click.option("--symbol", default="", help="Only orders in this symbol.")(command)
    command = click.option("--strategy", type=click.IntRange(0, 63), help="Only orders of this strategy.")(command)
    return click.option("--instance", default="tickpath", show_default=True)(command)


@click.command()
@click.option("--reason", default="", help="Why: kept with the kill and in the log.")
@scoped
@explained
def kill(reason: str, instance: str, strategy: int | None, symbol: str, venue: str) -> None:
    """Block new orders of a running instance and cancel its open ones, at once and until `tickpath arm`.

    It holds over restarts: a killed instance does not start, a killed part of one stays killed. Neither the strategy nor the rings are
    asked: the gateway alone does it.
    """
    from engine.runtime.latch import Scope
    from tools import killswitch

    scope = Scope(strategy, symbol, venue)
    number = killswitch.set_kill(instance, reason or "by hand", scope)
    about = "" if scope.whole else f" of {scope}"
    ends = f"`tickpath arm{scope.options}` lets it trade again"
    click.echo(f"{instance}: new orders{about} are blocked, open ones are being cancelled; {ends}")
    swept = killswitch.swept(instance, number)
    if swept is None:
        click.echo("the gateway has not sent all cancels yet: it does so as soon as it runs and the venue's session takes them")
    elif swept.cancels:
        click.echo(f"{swept.cancels:,} cancels written, the last {swept.last_us:,.0f} us after the command's word")
    else:
        click.echo("nothing was open")


@click.command()
@click.option("--by", default="", metavar="NAME", help="Who decides this: kept in the log (default: this user).")
@click.option("--reason", default="by hand", help="Why: kept in the log.")
@scoped
@explained
def arm(by: str, reason: str, instance: str, strategy: int | None, symbol: str, venue: str) -> None:
    """Let a killed instance trade, and start, again; or the part of it that was killed by the same words."""
    from engine.runtime.latch import Scope
    from tools import killswitch

    scope = Scope(strategy, symbol, venue)
    running = killswitch.clear_kill(instance, scope, by, reason)
    about = "" if scope.whole else f" ({scope})"
    click.echo(f"{instance}: armed{about}" + ("" if running else "; it does not run, and may start"))
    if (still := killswitch.described(instance)) != killswitch.NOTHING_KILLED:
        click.echo(f"still {still}")
