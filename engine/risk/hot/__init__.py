"""The risk gate's kernels: gate judges an order, each other file is one kind of check.

reasons    the verdicts                         state      what the gate looks at, word by word
size       quantity, price, their product       reference  the quote, the collar, and the collar over a window
own        our open orders: no trade with us    stake      positions, exposure, credit, losses
flow       amounts, duplicates and messages over time      rules      limits and states as they change while it runs
"""
