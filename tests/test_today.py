"""The share of a day: each item has its turn, once in so many days."""

import pytest

from today import of_today


@pytest.mark.parametrize("days", [1, 2, 3, 7])
def test_each_item_has_its_turn_once_and_the_days_share_the_work(days):
    items = list("abcdefghij")
    shares = [of_today(items, days, today, everything=False) for today in range(739_000, 739_000 + days)]
    assert sorted(item for share in shares for item in share) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_everything_is_run_where_it_is_asked_for():
    assert of_today([1, 2, 3], 3, 5, everything=True) == [1, 2, 3]
