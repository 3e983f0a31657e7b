"""The shipped market maker: scripts with their exact orders, and random markets against a venue that answers late and says no."""

import random
from collections import deque

import pytest

from engine.layout import BOOK_STALE, BOOK_VALID, BUY, MSG_EXECUTED, MSG_REPLACED, PHASE_DRAINING, REJECTED_BY_RISK, REJECTED_BY_VENUE, SELL
from engine.strategy.drive import (
    Buy,
    Cancel,
    Driver,
    Event,
    Order,
    Replace,
    Sell,
    accepted,
    cancelled,
    drive,
    executed,
    phase,
    quote,
    rejected,
    replaced,
    session,
    status,
    wait,
)

MARKET_MAKER = "engine.strategy.market_maker"

AT_100 = quote(1_000_000, 1_000_200)
UP_A_TICK = quote(1_000_100, 1_000_300)
UP_TWO = quote(1_000_200, 1_000_400)
BOTH = [Buy(1, 1_000_000, 100), Sell(2, 1_000_200, 100)]
STANDING = [AT_100, accepted(1), accepted(2)]


def sent_after(script: list[Event], *events: Event, **params: float) -> list[Order]:
    """The orders that `events` cause after `script`."""
    driver = Driver(MARKET_MAKER, params=params)
    for event in script:
        driver.happen(event)
    before = len(driver.orders)
    for event in events:
        driver.happen(event)
    return driver.orders[before:]


def test_it_quotes_both_sides_of_the_middle() -> None:
    assert drive(MARKET_MAKER, [AT_100]) == BOTH


@pytest.mark.parametrize(
    ("edge_ticks", "bid_px", "ask_px"),
    [(0, 1_000_500, 1_000_500), (0.5, 1_000_400, 1_000_600), (1, 1_000_400, 1_000_600), (3, 1_000_200, 1_000_800)],
)
def test_the_edge_is_counted_from_the_middle(edge_ticks: float, bid_px: int, ask_px: int) -> None:
    assert drive(MARKET_MAKER, [quote(1_000_000, 1_001_000)], params={"edge_ticks": edge_ticks}) == [
        Buy(1, bid_px, 100),
        Sell(2, ask_px, 100),
    ]


def test_half_a_tick_joins_a_market_one_tick_wide() -> None:
    assert drive(MARKET_MAKER, [quote(1_000_000, 1_000_100)]) == [Buy(1, 1_000_000, 100), Sell(2, 1_000_100, 100)]


def test_quotes_stand_on_price_steps() -> None:
    assert drive(MARKET_MAKER, [quote(1_000_000, 1_000_700)], tick_px=500) == [Buy(1, 1_000_000, 100), Sell(2, 1_001_000, 100)]


def test_it_leans_against_what_it_holds() -> None:
    assert sent_after(STANDING, executed(1), AT_100, skew_ticks=2) == [Buy(3, 999_800, 100), Replace(4, 2, 1_000_100, 100)]
    assert sent_after(STANDING, executed(2), AT_100, skew_ticks=2) == [Replace(3, 1, 1_000_100, 100), Sell(4, 1_000_400, 100)]


def test_it_never_crosses_however_far_it_leans() -> None:
    assert sent_after(STANDING, executed(1), AT_100, skew_ticks=50) == [Buy(3, 995_000, 100), Replace(4, 2, 1_000_100, 100)]
    assert sent_after(STANDING, executed(2), AT_100, skew_ticks=50) == [Replace(3, 1, 1_000_100, 100), Sell(4, 1_005_200, 100)]


def test_it_follows_the_market_from_the_threshold_on() -> None:
    both = [Replace(3, 1, 1_000_100, 100), Replace(4, 2, 1_000_300, 100)]
    assert sent_after(STANDING, UP_A_TICK) == both
    assert sent_after(STANDING, UP_A_TICK, requote_ticks=2) == []
    assert sent_after(STANDING, UP_TWO, requote_ticks=2) == [Replace(3, 1, 1_000_200, 100), Replace(4, 2, 1_000_400, 100)]
    assert sent_after(STANDING, AT_100, AT_100) == []


def test_it_asks_for_one_thing_at_a_time() -> None:
    assert sent_after([AT_100], UP_A_TICK, UP_TWO) == [], "the venue has not confirmed what is to be replaced"
    under_way = [*STANDING, UP_A_TICK]
    assert sent_after(under_way, UP_TWO, AT_100) == []
    assert sent_after(under_way, replaced(3), UP_TWO) == [Replace(5, 3, 1_000_200, 100)]
    assert sent_after(under_way, replaced(3), replaced(4), UP_TWO) == [Replace(5, 3, 1_000_200, 100), Replace(6, 4, 1_000_400, 100)]


def test_what_is_left_of_an_order_stays_until_its_price_moves() -> None:
    assert sent_after(STANDING, executed(1, 40), AT_100, skew_ticks=0) == []
    assert sent_after(STANDING, executed(1, 40), UP_A_TICK, skew_ticks=0) == [Replace(3, 1, 1_000_100, 100), Replace(4, 2, 1_000_300, 100)]


def test_a_filled_order_is_followed_by_another() -> None:
    assert sent_after(STANDING, executed(1, 40), executed(1, 60), AT_100, skew_ticks=0) == [Buy(3, 1_000_000, 100)]


def test_it_stops_buying_at_its_limit() -> None:
    assert sent_after(STANDING, executed(1), AT_100, position_max=100, skew_ticks=0) == []
    assert sent_after(STANDING, executed(1), AT_100, executed(2), AT_100, position_max=100, skew_ticks=0) == [
        Buy(3, 1_000_000, 100), Sell(4, 1_000_200, 100),
    ]  # fmt: skip


def test_it_never_has_more_open_than_the_limit_allows() -> None:
    assert sent_after([], AT_100, position_max=30) == [Buy(1, 1_000_000, 30), Sell(2, 1_000_200, 30)]
    filled = [*STANDING, executed(1, 100), AT_100, accepted(3)]
    assert sent_after(filled, executed(3, 20), AT_100, position_max=150, skew_ticks=0) == []
    assert sent_after(filled, executed(2, 50), AT_100, position_max=150, skew_ticks=0) == []


def test_an_order_that_has_become_too_large_is_made_smaller() -> None:
    driver = Driver(MARKET_MAKER, params={"position_max": 150, "skew_ticks": 0})
    for event in [*STANDING, executed(1), AT_100, accepted(3)]:
        driver.happen(event)
    assert driver.orders[-1] == Buy(3, 1_000_000, 50)
    driver.stage.state.places[0].position += 30
    assert driver.happen(AT_100) == [Replace(4, 3, 1_000_000, 20)]


def test_an_order_filled_before_its_replace_arrives_is_forgotten_with_it() -> None:
    script = [*STANDING, UP_A_TICK, executed(1), rejected(3, by=REJECTED_BY_VENUE)]
    assert sent_after(script, UP_A_TICK, skew_ticks=0) == [], "that side is quiet for a moment"
    assert sent_after(script, wait(100), UP_A_TICK, skew_ticks=0) == [Buy(5, 1_000_100, 100)]


def test_an_order_partly_filled_before_it_is_replaced_counts_what_the_venue_says() -> None:
    driver = Driver(MARKET_MAKER, params={"skew_ticks": 0})
    for event in [*STANDING, UP_A_TICK, executed(1, 70), replaced(3)]:
        driver.happen(event)
    assert [int(driver.state()["bid"][name]) for name in ("id", "live", "open")] == [3, 3, 100]


def test_an_order_whose_replace_was_refused_does_not_stay_at_its_old_price() -> None:
    refused = [*STANDING, UP_A_TICK]
    assert sent_after(refused, rejected(3)) == [Cancel(1)]
    assert sent_after([*refused, rejected(3), cancelled(1)], UP_A_TICK) == []
    assert sent_after([*refused, rejected(3), cancelled(1)], wait(100), UP_A_TICK) == [Buy(5, 1_000_100, 100)]


def test_a_refused_order_is_not_sent_again_at_once() -> None:
    refused = [AT_100, rejected(1), accepted(2)]
    assert sent_after(refused, *[AT_100] * 50) == []
    assert sent_after(refused, wait(100), AT_100) == [Buy(3, 1_000_000, 100)]
    assert sent_after(refused, AT_100, backoff_ms=0) == [Buy(3, 1_000_000, 100)]


def test_it_leaves_a_book_that_is_not_valid() -> None:
    assert sent_after(STANDING, status(BOOK_STALE)) == [Cancel(1), Cancel(2)]
    assert sent_after(STANDING, quote(1_000_000, 1_000_200, flags=BOOK_STALE)) == [Cancel(1), Cancel(2)]
    assert sent_after(STANDING, status(BOOK_STALE), status(BOOK_STALE)) == [Cancel(1), Cancel(2)], "once"
    assert sent_after([*STANDING, status(BOOK_STALE)], status(BOOK_VALID), AT_100) == [], "not before the venue has confirmed"
    back = [cancelled(1), cancelled(2), status(BOOK_VALID), AT_100]
    assert sent_after([*STANDING, status(BOOK_STALE)], *back) == [Buy(3, 1_000_000, 100), Sell(4, 1_000_200, 100)]


def test_it_leaves_with_a_replace_under_way() -> None:
    under_way = [*STANDING, UP_A_TICK]
    assert sent_after(under_way, status(BOOK_STALE)) == [Cancel(1), Cancel(3), Cancel(2), Cancel(4)]
    replaced_after_all = [replaced(3), cancelled(3), rejected(1, by=REJECTED_BY_VENUE)]
    refused_after_all = [rejected(3), cancelled(1), rejected(3)]
    for ending in (replaced_after_all, refused_after_all):
        again = sent_after([*under_way, status(BOOK_STALE)], *ending, status(BOOK_VALID), wait(100), AT_100)
        assert again == [Buy(5, 1_000_000, 100)]


def test_it_leaves_a_market_with_one_side() -> None:
    assert sent_after(STANDING, quote(1_000_000, 0, 100, 0)) == [Cancel(1), Cancel(2)]
    assert sent_after([], quote(0, 1_000_200, 0, 100)) == []


def test_a_bid_that_would_cost_nothing_is_not_sent() -> None:
    assert drive(MARKET_MAKER, [quote(100, 300)], params={"edge_ticks": 5}) == [Sell(1, 700, 100)]


def test_an_order_that_the_venue_takes_off_is_followed_by_another() -> None:
    assert sent_after(STANDING, cancelled(1), AT_100) == [Buy(3, 1_000_000, 100)]
    assert sent_after(STANDING, cancelled(1, 30), AT_100) == [], "what is left of it stands"


def test_a_refused_cancel_is_asked_for_again() -> None:
    leaving = [*STANDING, status(BOOK_STALE), rejected(1, 100), cancelled(2)]
    assert sent_after(leaving, status(BOOK_STALE)) == [Cancel(1)]
    assert sent_after(leaving, status(BOOK_VALID), AT_100) == [Replace(3, 1, 1_000_000, 100), Sell(4, 1_000_200, 100)]


def test_a_cancel_that_came_too_late_is_the_end_of_it() -> None:
    leaving = [*STANDING, status(BOOK_STALE), executed(1), rejected(1), cancelled(2)]
    assert sent_after(leaving, status(BOOK_VALID), AT_100, skew_ticks=0) == [Buy(3, 1_000_000, 100), Sell(4, 1_000_200, 100)]


def test_orders_that_could_not_leave_are_sent_when_they_can() -> None:
    assert sent_after([session(False), AT_100, session(True)], AT_100) == BOTH
    assert sent_after(STANDING, phase(PHASE_DRAINING), UP_A_TICK, cancelled(1), cancelled(2), UP_TWO) == []


def test_reports_of_orders_long_gone_change_nothing() -> None:
    moved = [*STANDING, UP_A_TICK, replaced(3), replaced(4)]
    assert sent_after(moved, rejected(1), cancelled(1, 0), executed(1, 0), UP_A_TICK, skew_ticks=0) == []


# Against a venue that answers late.


class Venue:
    """A gateway and a venue behind a slow wire: requests and reports wait in line; fills, refusals and cancels race each other.

    Executed shares count against a replace's size, as OUCH has it. Some requests the risk gate refuses at once.
    """

    def __init__(self, driver: Driver, seed: int) -> None:
        self.driver = driver
        self.random = random.Random(seed)
        self.requests: deque[tuple[Order, int]] = deque()
        self.reports: deque[Event] = deque()
        self.live: dict[int, dict[str, int]] = {}
        self.told: dict[int, int] = {}
        self.targets: dict[int, int] = {}
        self.position = 0
        self.refusing = True

    def take(self, orders: list[Order]) -> None:
        for order in orders:
            if self.refusing and self.random.random() < 0.05:
                self.reports.append(rejected(order.order_id, self.open_at_gateway(order), by=REJECTED_BY_RISK))
            else:
                self.requests.append((order, self.told.get(order.target_id, 0) if isinstance(order, Replace) else 0))

    def open_at_gateway(self, order: Order) -> int:
        """What stays open of an order whose cancel is refused, on its way to the venue or there; 0 for any other request."""
        if not isinstance(order, Cancel):
            return 0
        under_way = [asked.qty for asked, _ in self.requests if not isinstance(asked, Cancel) and asked.order_id == order.order_id]
        return max([*under_way, self.live.get(order.order_id, {"open": 0})["open"]])

    def act(self) -> None:
        """The venue deals with one request."""
        order, told = self.requests.popleft()
        if isinstance(order, Buy | Sell):
            if self.random.random() < 0.03:
                self.reports.append(rejected(order.order_id, by=REJECTED_BY_VENUE))
                return
            side = BUY if isinstance(order, Buy) else SELL
            self.live[order.order_id] = {"side": side, "open": order.qty, "executed": 0}
            self.reports.append(accepted(order.order_id))
        elif isinstance(order, Replace):
            target = self.live.get(order.target_id)
            # A replace names the whole size of its chain: what was executed, and not yet told when it was asked for, comes off it.
            left = order.qty + told - target["executed"] if target else 0
            if target is None or left <= 0:
                self.reports.append(rejected(order.order_id, by=REJECTED_BY_VENUE))
            else:
                del self.live[order.target_id]
                self.live[order.order_id] = {**target, "open": left}
                self.targets[order.order_id] = order.target_id
                self.reports.append(Event(MSG_REPLACED, None, order.order_id, {"qty": left}))
        elif order.order_id in self.live:
            self.reports.append(cancelled(order.order_id, self.live.pop(order.order_id)["open"]))
        elif self.random.random() < 0.5:
            self.reports.append(rejected(order.order_id, by=REJECTED_BY_VENUE))

    def trade(self) -> None:
        """Somebody trades with one of the orders."""
        order_id = self.random.choice(list(self.live))
        order = self.live[order_id]
        qty = self.random.randint(1, order["open"])
        order["open"] -= qty
        order["executed"] += qty
        self.position += qty if order["side"] == BUY else -qty
        self.reports.append(executed(order_id, qty))
        if order["open"] == 0:
            del self.live[order_id]

    def tell(self) -> None:
        """One report reaches the strategy."""
        report = self.reports.popleft()
        if report.kind == MSG_EXECUTED:
            self.told[report.order_id] = self.told.get(report.order_id, 0) + report.values["qty"]
        elif report.kind == MSG_REPLACED:
            self.told[report.order_id] = self.told.get(self.targets[report.order_id], 0)
        self.take(self.driver.happen(report))

    def settle(self) -> None:
        while self.requests or self.reports:
            if self.requests:
                self.act()
            if self.reports:
                self.tell()


@pytest.mark.parametrize("attempt", range(25))
def test_it_keeps_its_promises_whatever_the_venue_does(attempt: int) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed={seed}")
    chance = random.Random(seed)
    limit = chance.choice((100, 150, 400))
    driver = Driver(MARKET_MAKER, params={"position_max": limit, "backoff_ms": chance.choice((0, 1)), "edge_ticks": 0.5})
    venue = Venue(driver, seed)
    bid_px = 1_000_000
    for _ in range(600):
        act = chance.random()
        if act < 0.4:
            bid_px += chance.choice((-200, -100, 0, 0, 100, 200))
            before = len(driver.orders)
            venue.take(driver.happen(quote(bid_px, bid_px + 200)))
            for order in driver.orders[before:]:
                if isinstance(order, Buy):
                    assert order.px < bid_px + 200
                elif isinstance(order, Sell):
                    assert order.px > bid_px
        elif act < 0.43:
            venue.take(driver.happen(status(chance.choice((BOOK_STALE, BOOK_VALID)))))
        elif act < 0.65 and venue.requests:
            venue.act()
        elif act < 0.75 and venue.live:
            venue.trade()
        elif venue.reports:
            venue.tell()
        sides = [order["side"] for order in venue.live.values()]
        assert len(sides) == len(set(sides)), f"two orders on one side: {venue.live}"
        assert abs(venue.position) <= limit
    venue.refusing = False
    venue.take(driver.happen(status(BOOK_VALID)))
    venue.settle()
    for _ in range(4):
        venue.take([*driver.happen(wait(5)), *driver.happen(quote(bid_px, bid_px + 200))])
        venue.settle()
    state = driver.state()
    assert driver.position() == venue.position
    assert {int(state[side]["id"]) for side in ("bid", "ask")} - {0} == set(venue.live), "what it believes to stand is what stands"
    assert len(venue.live) == 2 or abs(venue.position) == limit
    venue.take(driver.happen(status(BOOK_STALE)))
    venue.settle()
    assert venue.live == {}
    assert [int(driver.state()[side]["id"]) for side in ("bid", "ask")] == [0, 0]
