"""The strategy: bisect the path for the smallest choice that satisfies, then try to compress it further in groups."""

from collections.abc import Callable, Sequence

from amct_lite.search.path import Choice, Unit

__all__ = ["bisect_path", "refine"]

Test = Callable[[Choice], bool]


def bisect_path(path: Sequence[Choice], satisfies: Test) -> Choice | None:
    """Find a choice that satisfies while its predecessor on the path does not.

    Takes about log2(len(path)) + 1 tests. Where the metric is not monotone along the path the result still satisfies:
    only choices that were tested and passed are returned.

    Args:
        path: Choices from the smallest to the most exact.
        satisfies: The user's test.

    Returns:
        The choice, or None where not even the most exact one passes.
    """
    if satisfies(path[0]):
        return path[0]
    fails, passes = 0, len(path)
    while passes - fails > 1:
        middle = (fails + passes) // 2
        if satisfies(path[middle]):
            passes = middle
        else:
            fails = middle
    return path[passes] if passes < len(path) else None


def refine(units: Sequence[Unit], best: Choice, satisfies: Test) -> Choice:
    """Compress a choice that satisfies further, several units at once, halving the group after each failure.

    The path fixes the order in which units are compressed by a prediction; this step corrects it by the test itself.

    Args:
        units: The units.
        best: A choice that satisfies.
        satisfies: The user's test.

    Returns:
        A choice that satisfies and is not larger.
    """
    refused: set[int] = set()
    group_size = max(1, len(units) // 2)
    while True:
        moves = [number for number in _moves(units, best) if number not in refused]
        if not moves:
            return best
        group_size = min(group_size, len(moves))
        group = moves[:group_size]
        smaller = tuple(index - (number in group) for number, index in enumerate(best))
        if satisfies(smaller):
            best = smaller
        elif group_size == 1:
            refused.add(group[0])
        else:
            group_size //= 2


def _moves(units: Sequence[Unit], choice: Choice) -> list[int]:
    """Units that can go one step smaller, the least error added per byte saved first."""

    def cost(number: int) -> float:
        now = units[number].options[choice[number]]
        smaller = units[number].options[choice[number] - 1]
        return (smaller.error - now.error) / max(now.size_bytes - smaller.size_bytes, 1)

    return sorted((n for n, index in enumerate(choice) if index > 0), key=lambda n: (cost(n), n))
