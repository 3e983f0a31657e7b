from engine.strategy.api import *


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    with open("log.txt") as file:
        file.write("hello")


# says:
# with_open.py:10: in on_book: with cannot be compiled into the trading loop
#     with open("log.txt") as file:
#   instead: open files and the like outside the strategy: while it trades nothing is opened or closed
