"""The cache never exceeds its bound, gives up what was used longest ago, and survives scans larger than it."""

from hypothesis import given
from hypothesis import strategies as st

from amct_lite.reuse.bounded_cache import BoundedCache


@given(st.integers(0, 40), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 15), st.integers(0, 4))))
def test_the_bound_holds_and_what_is_found_is_what_was_put(bound: int, steps: list[tuple[int, int, int]]) -> None:
    cache: BoundedCache[int] = BoundedCache(bound)
    sizes: dict[int, int] = {}
    for key, size, round_number in steps:
        if cache.get(key, round_number) is None:
            if cache.put(key, key, size, round_number):
                sizes[key] = size
        else:
            assert cache.get(key, round_number) == key
        assert cache.size_bytes <= bound
        assert cache.size_bytes == sum(sizes[k] for k in sizes if cache.get(k, 0) is not None)


def test_the_least_recently_used_goes_first() -> None:
    cache: BoundedCache[str] = BoundedCache(3)
    for key in "abc":
        cache.put(key, key, 1, 0)
    cache.get("a", 0)
    assert cache.put("d", "d", 1, 1)
    assert [key for key in "abcd" if cache.get(key, 1)] == ["a", "c", "d"]


def test_a_scan_larger_than_the_cache_finds_again_what_fitted() -> None:
    cache: BoundedCache[int] = BoundedCache(4)
    found = []
    for round_number in range(3):
        hits = 0
        for key in range(10):
            hits += cache.get(key, round_number) is not None
            cache.put(key, key, 1, round_number)
        found.append(hits)
    assert found == [0, 4, 4]


def test_what_a_round_no_longer_uses_makes_room_for_what_it_makes() -> None:
    cache: BoundedCache[str] = BoundedCache(4)
    for key in ("kept", "old1", "old2", "old3"):
        cache.put(key, key, 1, 0)
    cache.get("kept", 1)
    assert all(cache.put(key, key, 1, 1) for key in ("new1", "new2", "new3"))
    assert not cache.put("new4", "new4", 1, 1)
    assert cache.get("kept", 1) == "kept"


def test_nothing_is_given_up_for_what_does_not_fit_anyway() -> None:
    cache: BoundedCache[str] = BoundedCache(4)
    cache.put("a", "a", 2, 0)
    assert not cache.put("b", "b", 5, 1)
    assert cache.get("a", 1) == "a"
