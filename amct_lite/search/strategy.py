"""The strategy: bisect the path for the smallest choice that satisfies, then try to compress it further in groups."""

from collections.abc import Callable, Sequence

from amct_lite.search.path import Choice, Unit, choice_bytes

__all__ = ["bisect_path", "refine"]

Test = Callable[[Choice], bool]

# A first step that is worth an evaluation, and a last one below which a smaller file is nobody's concern.
FIRST_SHARE = 0.08
LAST_SHARE = 0.005


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
    """Compress a choice that satisfies further, in groups of units, until no worthwhile step passes.

    The path orders units by a prediction; here the test itself corrects it. A group saves at least a given share of
    the bytes; units of a group that fails are left out until the share is halved (group testing).

    Args:
        units: The units.
        best: A choice that satisfies.
        satisfies: The user's test.

    Returns:
        A choice that satisfies and is not larger.
    """
    share = FIRST_SHARE
    while share >= LAST_SHARE:
        suspects: set[int] = set()
        while group := _cheapest_group(units, best, share * choice_bytes(units, best), suspects):
            smaller = tuple(index - (number in group) for number, index in enumerate(best))
            if satisfies(smaller):
                best = smaller
            else:
                suspects |= group
        share /= 2
    return best


def _cheapest_group(units: Sequence[Unit], choice: Choice, bytes_to_save: float, suspects: set[int]) -> set[int]:
    """Units whose next smaller options save enough bytes together, those that add least error per byte first.

    Returns:
        The units' numbers; none where all that are left do not save enough.
    """

    def step(number: int) -> tuple[int, float]:
        now, smaller = (units[number].options[choice[number] - back] for back in (0, 1))
        saved = now.size_bytes - smaller.size_bytes
        return saved, (smaller.error - now.error) / max(saved, 1)

    movable = [number for number, index in enumerate(choice) if index > 0 and number not in suspects]
    group: set[int] = set()
    saved_bytes = 0
    for number in sorted(movable, key=lambda n: (step(n)[1], n)):
        group.add(number)
        saved_bytes += step(number)[0]
        if saved_bytes >= bytes_to_save:
            return group
    return set()
