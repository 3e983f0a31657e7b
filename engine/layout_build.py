"""The cffi recipe of `engine._layout`: the structs that the engine's processes share, as the C compiler lays them out."""

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent
HEADERS = ("messages/messages.h", "runtime/control.h", "risk/risk.h", "gateway/open_orders.h")

ASSERTS = """
#include <stddef.h>
#include <stdint.h>
#include "messages/messages.h"
#include "runtime/control.h"
#include "risk/risk.h"
#include "gateway/open_orders.h"

#define ONE_LINE(record) \\
    _Static_assert(sizeof(struct record) == 64, #record " is one cache line"); \\
    _Static_assert(offsetof(struct record, age_tsc) == 28, #record " begins like every record")
ONE_LINE(tp_instrument);
ONE_LINE(tp_quote);
ONE_LINE(tp_level);
ONE_LINE(tp_trade);
ONE_LINE(tp_status);
ONE_LINE(tp_order);
ONE_LINE(tp_report);

#define WHOLE_LINES(record) _Static_assert(sizeof(struct record) % 64 == 0, #record " is whole cache lines")
WHOLE_LINES(tp_control);
WHOLE_LINES(tp_process);
WHOLE_LINES(tp_feed_stats);
WHOLE_LINES(tp_feed_line);
WHOLE_LINES(tp_symbol);
WHOLE_LINES(tp_strategy_stats);
WHOLE_LINES(tp_gateway_stats);
WHOLE_LINES(tp_exchange_stats);
WHOLE_LINES(tp_position);
WHOLE_LINES(tp_risk_rules);
WHOLE_LINES(tp_risk_facts);
WHOLE_LINES(tp_capture);
_Static_assert(sizeof(struct tp_open_order) == 64, "an order is one cache line");
"""

ffi = FFI()
ffi.cdef("".join((HERE / header).read_text() for header in HEADERS))
ffi.set_source(
    "engine._layout",
    ASSERTS,
    include_dirs=[str(HERE)],
    depends=[str(HERE / header) for header in HEADERS],
    extra_compile_args=["-O2", "-Wall", "-Werror"],
)

if __name__ == "__main__":
    ffi.compile(verbose=True)
