"""MoldUDP64 1.00: the downstream packet that carries ITCH over UDP, and the request packet that asks for messages again.

     0              10                18       20
     +--------------+-----------------+--------+---------+---------+---------+----
     | session      | sequence number | count  | length  | message | length  | ...
     +--------------+-----------------+--------+---------+---------+---------+----

The sequence number is that of the first message. count 0 is a heartbeat that names the next sequence; count 0xFFFF ends
the session. Integers are big-endian.

A request packet is these 20 bytes alone: the session, the first sequence number that is wanted, and how many messages. A rewind server
answers whoever sent it with one downstream packet of those messages, as many as fit and as it has; to anything else it says nothing.
"""

SESSION_AT = 0
SESSION_BYTES = 10
SEQUENCE_AT = 10
COUNT_AT = 18
HEADER_BYTES = 20
LENGTH_BYTES = 2
END_OF_SESSION = 0xFFFF
HEARTBEAT = 0
# The most that fits an Ethernet frame without fragments: 1500 less the IP and UDP headers.
PACKET_BYTES_MAX = 1472
REQUEST_BYTES = HEADER_BYTES
REQUEST_MESSAGES_MAX = 0xFFFF
