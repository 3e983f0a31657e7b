"""The four stages, built from a config: the one place that knows every room."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import msgspec

from engine.book.hot.book import Book
from engine.exchange.stage import Account, ExchangeStage
from engine.feed.recovery import Recovery
from engine.feed.stage import FeedStage
from engine.gateway.stage import GatewayStage
from engine.runtime.clock import Calibration
from engine.runtime.config import Config, RecoveryConfig, publishes, split_address, trades_on_paper
from engine.runtime.instance import Instance
from engine.runtime.logins import Logins
from engine.runtime.venue_config import faults_of, latency_of
from engine.strategy.stage import StrategyStage
from shm.roles import Role

# Where a market's packets go that nobody receives: the discard service's port, on this machine.
NOBODY = ("127.0.0.1", 9)


class Stage(Protocol):
    """What the loop needs of a stage: its kernel's module, the kernel's state, and what its reasons to leave mean."""

    state: Any
    step_module: str
    reasons: dict[int, str]

    @property
    def roles(self) -> Sequence[Role]:
        """The ring ends that it holds: the process gives their signs of life."""

    def close(self) -> None: ...


@runtime_checkable
class AttendedStage(Protocol):
    """A stage with something to do now and then that its kernel cannot: what it does must not wait."""

    def attend(self) -> None: ...


@dataclass(frozen=True)
class Run:
    """Everything a process needs to know, decided before the fork."""

    config: Config
    instance: Instance
    calibration: Calibration
    midnight_ns: int
    book: Book
    logins: Logins


def build(name: str, run: Run) -> Stage:
    return BUILDERS[name](run)


def build_feed(run: Run) -> Stage:
    config, shared = run.config.feed, run.instance
    return FeedStage(
        ticks=shared.ticks,
        quotes=shared.quotes,
        instruments=shared.instruments,
        stats=shared.feed_stats,
        lines=shared.feed_lines,
        tops=shared.symbols,
        control=shared.control,
        hops=shared.hops,
        source=config.source,
        address=split_address(config.address),
        address_b=split_address(config.address_b) if config.address_b else None,
        interface=config.interface,
        interface_b=config.interface_b,
        path=config.path,
        speed=config.speed,
        capture=shared.capture,
        hold=True,
        symbols=config.symbols or None,
        publish_levels=config.publish_levels,
        receive_buffer_bytes=config.receive_buffer_bytes,
        busy_poll_us=config.busy_poll_us,
        kernel_stamps=config.kernel_stamps,
        stale_after_ms=config.stale_after_ms,
        clock_drift_ms_max=config.clock_drift_ms_max,
        check_books=config.check_books,
        recovery=_recovery(config.recovery, run.logins),
        orders_max=config.orders_max,
        levels_max=config.levels_max,
        midnight_ns=run.midnight_ns,
        book=run.book,
        market=shared.market,
        paced=trades_on_paper(run.config),
    )


def _recovery(config: RecoveryConfig, logins: Logins) -> Recovery:
    values = msgspec.structs.asdict(config)
    values["snapshot_credentials"] = logins.snapshot
    values["rewind"] = [split_address(address) for address in config.rewind]
    values["snapshot"] = split_address(config.snapshot) if config.snapshot else None
    return Recovery(**values)


def build_strategy(run: Run) -> Stage:
    config, shared = run.config.strategy, run.instance
    return StrategyStage(
        ticks=shared.ticks,
        orders=shared.orders,
        reports=shared.reports,
        stats=shared.strategy_stats,
        control=shared.control,
        hops=shared.hops,
        strategy=config.use,
        params=config.params,
        symbols=config.symbols,
        timer_ms=config.timer_ms,
        book=run.book,
        positions=shared.positions,
    )


def build_gateway(run: Run) -> Stage:
    config, shared = run.config.gateway, run.instance
    return GatewayStage(
        orders=shared.orders,
        reports=shared.reports,
        quotes=shared.quotes,
        instruments=shared.instruments,
        positions=shared.positions,
        stats=shared.gateway_stats,
        control=shared.control,
        hops=shared.hops,
        rules=shared.rules,
        facts=shared.facts,
        open_orders=shared.open_orders,
        address=split_address(config.address),
        credentials=run.logins.gateway,
        session=config.session,
        protocol=config.protocol,
        trader=config.trader,
        limits=run.config.risk,
        midnight_ns=run.midnight_ns,
        symbols=run.config.strategy.symbols,
        pace_per_s=config.pace_per_s,
        pace_burst=config.pace_burst,
        queue_max=config.queue_max,
        silence_ms=config.silence_ms,
        connect_ms=config.connect_ms,
        reconnect_ms=config.reconnect_ms,
        reconnect_ms_max=config.reconnect_ms_max,
        reconnect_tries=config.reconnect_tries,
        jitter_seed=os.getpid(),
    )


def build_exchange(run: Run) -> Stage:
    config, feed, shared = run.config.exchange, run.config.feed, run.instance
    assert config is not None
    # The addresses of a capture, and of a market that is traded on paper, are a real market's: nothing of ours may be sent there.
    on_network = publishes(run.config)
    username, password = run.logins.gateway.texts()
    snapshot_username, snapshot_password = run.logins.snapshot.texts()
    accounts = [
        Account("", "", one.cancel_on_disconnect, one.self_trade, one.firm, one.protocol, login)
        for login, one in zip(run.logins.accounts, config.accounts, strict=True)
    ]
    return ExchangeStage(
        control=shared.control,
        stats=shared.exchange_stats,
        positions=shared.exchange_positions,
        market_address=split_address(feed.address) if on_network else NOBODY,
        interface=feed.interface,
        order_address=split_address(run.config.gateway.address),
        username=username,
        password=password,
        session=run.config.gateway.session,
        market_address_b=split_address(feed.address_b) if feed.address_b and on_network else None,
        interface_b=feed.interface_b,
        rewind_addresses=[split_address(address) for address in feed.recovery.rewind if shared.market is None],
        rewind_messages=config.rewind_messages,
        snapshot_address=split_address(feed.recovery.snapshot) if feed.recovery.snapshot and shared.market is None else None,
        snapshot_username=snapshot_username,
        snapshot_password=snapshot_password,
        cancel_on_disconnect=config.cancel_on_disconnect,
        self_trade=config.self_trade,
        firm=config.firm,
        protocol=run.config.gateway.protocol,
        accounts=accounts,
        latency=latency_of(config.latency),
        faults=faults_of(config.faults),
        market=shared.market,
        flow=config.flow,
        symbols={listed.symbol: listed.px for listed in config.symbols},
        rate_per_s=config.rate_per_s,
        seed=config.seed,
        path=config.path,
        speed=config.speed,
        silence_ms_max=config.silence_ms_max,
        follow_feed=on_network,
        window_messages=config.window_messages,
        orders_max=config.orders_max,
        levels_max=config.levels_max,
        pro_rata=config.pro_rata_symbols(),
        pro_rata_minimum=config.pro_rata_minimum,
        hours=config.schedule.hours(),
        midnight_ns=run.midnight_ns,
    )


BUILDERS = {"feed": build_feed, "strategy": build_strategy, "gateway": build_gateway, "exchange": build_exchange}
