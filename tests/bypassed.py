"""A feed handler under tests/c/bypass.c: run with LD_PRELOAD by tests/test_receive.py. Prints what it published, as JSON."""

import ctypes
import json

from engine.feed.source import open_line
from tests.feed_house import feed_house, only


def main() -> None:
    stack = ctypes.CDLL(None)
    with feed_house(receive_buffer_bytes=65_536) as house:
        quotes = only(house.settle(), "quote", "bid_px", "bid_sz")
        counted = house.counted()
    calls, bindings, refused = (stack.bypass_told(which) for which in range(3))
    line = open_line(("239.195.1.10", 0), "lo", 1 << 30, busy_poll_us=75, kernel_stamps=True)
    told = {
        "quotes": quotes,
        "packets": counted["packets"],
        "calls": calls,
        "bindings": bindings,
        "refused": stack.bypass_told(2) - refused,
        "shortfalls": line.shortfalls,
        "granted": [line.busy_poll_us, line.kernel_stamps],
        "drops": line.drops(),
    }
    line.close()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
