"""OUCH 4.2 for tests that think in 5.0: every message said again from the two tables, in plain Python and field by field.

Nothing of it is the engine's: what the kernels make of a message is held against this.
"""

from typing import Any

from engine.gateway.ouch import v42, v50

TRADER = "DESK"
TIFS = {"0": 99_998, "3": 0}
SECONDS = {seconds: tif for tif, seconds in TIFS.items()}
REJECTS = {v50.REJECT_CLOSED: "C", v50.REJECT_INVALID_QUANTITY: "Z", v50.REJECT_INVALID_SYMBOL: "S", v50.REJECT_INVALID_PRICE: "X"}
REASONS = {letter: number for number, letter in REJECTS.items()} | {"O": v50.REJECT_OTHER}
# What only 4.2 has, as the gateway says it.
OWN = {"firm": "", "customer": "", "quantity_min": 0, "bbo_weight": ""}


def our_token(user_ref: int, strategy: int = 0, trader: str = TRADER) -> str:
    return f"{strategy:02}{user_ref:08}{trader}"


class Tongue:
    """The tokens of one session: those that were heard, and of any other number what `name` makes of it."""

    def __init__(self, name: Any = our_token) -> None:
        self.name = name
        self.tokens: dict[int, str] = {}

    def token(self, user_ref: int) -> str:
        return str(self.tokens.get(user_ref) or self.name(user_ref))

    def number(self, token: str) -> int:
        for user_ref, known in self.tokens.items():
            if known == token:
                return user_ref
        user_ref = int(token[2:10])
        self.tokens[user_ref] = token
        return user_ref

    def to_42(self, raw: bytes, *, inbound: bool = False) -> bytes:
        """A message of 5.0 in 4.2; one that 4.2 has not, and what is no message, as it is."""
        old = (v50.INBOUND_BY_CODE if inbound else v50.OUTBOUND_BY_CODE).get(raw[0]) if raw else None
        new = (v42.INBOUND_BY_CODE if inbound else v42.OUTBOUND_BY_CODE).get(raw[0]) if raw else None
        if old is None or new is None or len(raw) != old.length:
            return raw
        said: dict[str, Any] = old.decode(raw)
        for number, token in (("user_ref", "token"), ("orig_user_ref", "orig_token")):
            if number in said:
                said[token] = self.token(said[number])
        if "tif" in said:
            said["tif"] = TIFS.get(said["tif"], 1)
        if old is v50.REJECTED:
            said["reason"] = REJECTS.get(said["reason"], "O")
        wanted = [field.name for field in new.fields if field.name != "type"]
        return new.encode(**{name: said.get(name, OWN.get(name)) for name in wanted})

    def to_50(self, raw: bytes, *, inbound: bool = False) -> dict[str, Any]:
        """What a message of 4.2 says, in the fields of 5.0."""
        old = (v42.INBOUND_BY_CODE if inbound else v42.OUTBOUND_BY_CODE)[raw[0]]
        new = (v50.INBOUND_BY_CODE if inbound else v50.OUTBOUND_BY_CODE)[raw[0]]
        said: dict[str, Any] = old.decode(raw)
        if "token" in said:
            token = said["token"]
            said["client_id"] = said.get("firm") if "firm" in said and not inbound else f"{token[10:]:<10}/S{token[:2]}"
        for number, name in (("user_ref", "token"), ("orig_user_ref", "orig_token")):
            if name in said:
                said[number] = self.number(said[name])
        if "tif" in said:
            said["tif"] = SECONDS[said["tif"]]
        if old is v42.REJECTED:
            said["reason"] = REASONS[said["reason"]]
        said["appendage_length"] = 0
        return {field.name: said[field.name] for field in new.fields if field.name != "type"}
