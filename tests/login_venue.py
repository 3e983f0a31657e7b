"""A venue in a process of its own that lets in one login and nothing else: `tickpath run` without an [exchange] section is pointed at it.

    python -m tests.login_venue PORT USERNAME PASSWORD

It says READY when it can be reached, and ends when its standard input does.
"""

import sys
import time
import uuid

from engine.exchange.hot.step import step
from engine.exchange.stage import ExchangeStage
from engine.layout import CONTROL, EXCHANGE_STATS, POSITION
from engine.runtime.clock import calibrate
from shm.table import Board, Table
from tests.fault_process import HOST, OVER, hear, say


def main(port: int, username: str, password: str) -> None:
    name = f"test-login-venue-{uuid.uuid4().hex[:12]}"
    control, stats = Table.create(f"{name}.control", CONTROL), Table.create(f"{name}.stats", EXCHANGE_STATS)
    positions = Board.create(f"{name}.positions", POSITION, 65_536)
    for table in (control, stats, positions):
        table.unlink()
    stage = ExchangeStage(
        control=control, stats=stats, positions=positions, market_address=(HOST, 9), order_address=(HOST, port), username=username,
        password=password, flow="none", symbols={"AAPL": 150.0}, orders_max=1 << 10, levels_max=1 << 10,
    )  # fmt: skip
    clock = calibrate().clock()
    say("READY")
    while hear() != OVER:
        for _ in range(20):
            step(stage.state, clock)
        time.sleep(0.001)
    stage.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
