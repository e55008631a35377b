"""Which annotated category each class of a detector is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tvmdet.coco_names import plain_class_name
from tvmdet.counted import counted
from tvmdet.errors import InputError

__all__ = ["RULES", "ClassMap", "map_classes"]

RULES = ("name", "id", "order")
"""How classes may be told: by label, by number, or by place in the list."""

_SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class ClassMap:
    """The categories of classes.

    Attributes:
        categories: Category id by class id; a class that is no category has none.
        warnings: What does not match, one sentence each.
    """

    categories: Mapping[int, int]
    warnings: tuple[str, ...] = ()


def map_classes(
    labels: Sequence[str],
    categories: Mapping[int, str],
    rule: str,
    annotated: Iterable[int] = (),
) -> ClassMap:
    """Finds the category of each class.

    Args:
        labels: Of the detector, by class id.
        categories: Names by id.
        rule: ``name``, ``id`` (class 17 is category 17) or ``order`` (the first class is the
            category with the lowest id).
        annotated: Ids of the categories that objects have.

    Raises:
        InputError: The rule is unknown, no class matches, or labels are doubled.
    """
    if rule not in RULES:
        raise InputError(f"classes cannot be told by {rule!r}; allowed: {', '.join(RULES)}")
    if rule == "name":
        found = _by_name(labels, categories)
    elif rule == "id":
        found = {index: index for index in range(len(labels)) if index in categories}
    else:
        if len(labels) != len(categories):
            raise InputError(
                f"the detector has {counted(len(labels), 'class', 'classes')} and the annotations "
                f"have {counted(len(categories), 'category', 'categories')}; they can be told by "
                "order only where both have as many: give --classes-by name, or id"
            )
        found = dict(enumerate(categories))
    if not found:
        raise InputError(
            f"no class of the detector is a category of the annotations. Classes: "
            f"{_some(labels)}. Categories: {_some(categories.values())}. Compile it with the right "
            "labels in --spec, or give --classes-by id, or order"
        )
    return ClassMap(categories=found, warnings=_warnings(labels, categories, found, annotated))


def _by_name(labels: Sequence[str], categories: Mapping[int, str]) -> dict[int, int]:
    ids = {name: key for key, name in categories.items()}
    if len(ids) < len(categories):
        name, _ = Counter(categories.values()).most_common(1)[0]
        raise InputError(
            f"several categories of the annotations are called {name!r}; give --classes-by id"
        )
    # Exact names first: only what is left may differ in case, spaces or dashes.
    found = {index: ids[label] for index, label in enumerate(labels) if label in ids}
    plain = Counter(map(plain_class_name, ids))
    free = {
        plain_class_name(name): key
        for name, key in ids.items()
        if key not in found.values() and plain[plain_class_name(name)] == 1
    }
    for index, label in enumerate(labels):
        if index not in found and plain_class_name(label) in free:
            found[index] = free[plain_class_name(label)]
    key, count = Counter(found.values()).most_common(1)[0] if found else (0, 0)
    if count > 1:
        raise InputError(
            f"{count} classes of the detector are called {categories[key]!r}; compile it with "
            "labels of its own for each in --spec, or give --classes-by id"
        )
    return found


def _warnings(
    labels: Sequence[str],
    categories: Mapping[int, str],
    found: Mapping[int, int],
    annotated: Iterable[int],
) -> tuple[str, ...]:
    said = []
    matched = set(found.values())
    missed = [categories[key] for key in sorted(set(annotated) - matched)]
    if missed:
        what = counted(len(missed), "annotated category", "annotated categories")
        said.append(f"{what} without a class of the detector, never found then: {_some(missed)}")
    unused = [label for index, label in enumerate(labels) if index not in found]
    if unused:
        what = counted(len(unused), "class", "classes")
        said.append(f"{what} of the detector left out, no category of the file: {_some(unused)}")
    return tuple(said)


def _some(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more
