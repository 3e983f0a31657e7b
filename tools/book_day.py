"""Which day an ITCH file is of, and when that day began: ITCH counts nanoseconds since midnight in its market's time."""

import datetime as dt
import re
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

MARKET_TZ = "America/New_York"
# To --date: take the day from the file's name.
FROM_NAME = "name"

# 01302019.NASDAQ_ITCH50.gz, S013019-v50.txt.gz as NASDAQ names them; then 20190730.BX_ITCH_50.gz, aapl_2019-01-30.itch, and such.
_NAMES = (
    (re.compile(r"^(?P<m>\d\d)(?P<d>\d\d)(?P<y>\d{4})\.NASDAQ_ITCH50"), 0),
    (re.compile(r"^S(?P<m>\d\d)(?P<d>\d\d)(?P<y>\d\d)-v50"), 2000),
    (re.compile(r"(?<!\d)(?P<y>(?:19|20)\d\d)(?P<dash>[-_.]?)(?P<m>\d\d)(?P=dash)(?P<d>\d\d)(?!\d)"), 0),
)


def day_of_name(name: str) -> dt.date | None:
    """The day that a file's name says, or None."""
    for pattern, century in _NAMES:
        for found in pattern.finditer(Path(name).name):
            try:
                return dt.date(century + int(found["y"]), int(found["m"]), int(found["d"]))
            except ValueError:
                continue
    return None


def day_of(given: str | None, name: str) -> dt.date | None:
    """The day that --date gives: YYYY-MM-DD, or `name`, the one in the file's name. ValueError where it is none."""
    if given is None:
        return None
    if given == FROM_NAME:
        if (day := day_of_name(name)) is None:
            raise ValueError(f"--date={given}: {Path(name).name} does not say its day; give --date YYYY-MM-DD")
        return day
    try:
        return dt.datetime.strptime(given, "%Y-%m-%d").date()
    except ValueError:
        raise ValueError(f"--date={given}: expected YYYY-MM-DD, or '{FROM_NAME}' to take the day from the file's name") from None


def midnight_ns(day: dt.date, tz: str) -> int:
    """When a day began in the market's time, in nanoseconds since the epoch. ValueError where there is no such time zone."""
    try:
        zone = ZoneInfo(tz)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"--tz={tz}: expected a time zone such as {MARKET_TZ}") from None
    return int(dt.datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * 1_000_000_000
