"""SoupBinTCP 3.00: packets on a TCP stream, with login, heartbeats and a replayable sequence from the server.

     0        2      3
     +--------+------+-----------------+
     | length | type | payload         |      length counts the type and the payload, big-endian
     +--------+------+-----------------+

Sequenced packets carry no number: the client counts them from the one that the login response names.
"""

from engine.wire.table import Message, text

LENGTH_BYTES = 2
TYPE_AT = 2
PAYLOAD_AT = 3

# The messages below begin with their type byte, that is at TYPE_AT.
LOGIN_REQUEST = Message("login request", "L", text("username", 6), text("password", 10), text("session", 10), text("sequence", 20))
LOGIN_ACCEPTED = Message("login accepted", "A", text("session", 10), text("sequence", 20))
LOGIN_REJECTED = Message("login rejected", "J", text("reason", 1))

DEBUG = ord("+")
SEQUENCED = ord("S")
UNSEQUENCED = ord("U")
SERVER_HEARTBEAT = ord("H")
CLIENT_HEARTBEAT = ord("R")
END_OF_SESSION = ord("Z")
LOGOUT = ord("O")

NOT_AUTHORIZED = ord("A")
SESSION_UNAVAILABLE = ord("S")

# Section 2.4: each side sends something at least this often, and gives the other up after that much silence.
HEARTBEAT_NS = 1_000_000_000
SILENCE_NS = 15_000_000_000
