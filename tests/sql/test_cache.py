"""The statement cache keeps its bounds, forgets the least recently used first, and answers for one catalog only."""

from __future__ import annotations

from sql.cache import PlanCache


def test_the_least_recently_used_goes_first() -> None:
    cache: PlanCache[int] = PlanCache(2)
    cache.put(("a",), 1, 1)
    cache.put(("b",), 1, 2)
    assert cache.get(("a",), 1) == 1
    cache.put(("c",), 1, 3)
    assert [cache.get((name,), 1) for name in "abc"] == [1, None, 3]


def test_another_catalog_is_a_miss() -> None:
    cache: PlanCache[int] = PlanCache(2)
    cache.put(("a",), 1, 1)
    assert cache.get(("a",), 2) is None
    cache.put(("a",), 2, 5)
    assert cache.get(("a",), 2) == 5
    assert len(cache) == 1


def test_long_texts_are_bounded_together() -> None:
    cache: PlanCache[int] = PlanCache(1000, characters=100)
    for number in range(20):
        cache.put((f"{number:030d}", "app"), 1, number)
    assert len(cache) == 3
    cache.put(("x" * 101,), 1, 0)
    assert len(cache) == 0
    cache.put(("y" * 100,), 1, 1)
    assert cache.get(("y" * 100,), 1) == 1
