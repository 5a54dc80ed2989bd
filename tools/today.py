"""What is drawn anew each day, so that a long test is shared out over days and a failure can be run again.

`SEMHUB_AGAIN=all` runs everything; do so before a release.
"""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypeVar

TODAY = datetime.now(UTC).toordinal()
ALL = os.environ.get("SEMHUB_AGAIN") == "all"
T = TypeVar("T")


def of_today(items: Sequence[T], days: int, today: int = TODAY, everything: bool = ALL) -> list[T]:
    """The items whose turn it is, if each has its turn once in so many days; all of them if everything is asked for."""
    return [item for number, item in enumerate(items) if everything or (number + today) % days == 0]
