"""Glimpse 5.0: the state of a market as messages of its own feed, over SoupBinTCP.

After the login, for sequence number 1, the server sends each of these as one sequenced data packet:

    S, R, H, Y, N, h    the last system event; for each instrument its directory entry, and the last word on its trading state
    A, F                every live order, those of one level in the order of their priority
    G                   the end of the snapshot, which says where the feed goes on

The messages before G are those of ITCH 5.0 (engine/feed/itch.py). The sequence number in G is of MoldUDP64: that of the first message
which the snapshot does not contain, so that is the first one to apply to it. It is 20 ASCII digits with zeros in front.
"""

from engine.wire.table import Message, text

END_OF_SNAPSHOT = Message("end of snapshot", "G", text("sequence", 20))
# What a login must ask for: a snapshot has no middle to begin from.
FIRST_SEQUENCE = 1
