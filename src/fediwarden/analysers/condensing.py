"""Which findings of a long look are kept: enough to decide it again under any policy, few enough for a ledger. Pure."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from fediwarden.model import Finding

MOST_FACES = 32


def condense(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The strongest finding of each concept over all frames, and of faces those that no other face outdoes.

    Measures of a concept are each kept at their strongest too, whichever frame they come from: a rule that counts words of
    a group meets every word that some frame shows.

    A face outdoes another when it is at least as sure, as large, as young and as likely under age. Whatever thresholds a
    policy sets on score, side, age and under_18, some face meets them exactly when one of the kept faces does; nobody can
    hide a small face behind many clear ones. Only where more than MOST_FACES remain (crowds in long videos) are some of
    those in between left out. The order is by concept, then strongest first.
    """
    strongest: dict[str, Finding] = {}
    faces: list[Finding] = []
    for found in findings:
        if found.concept == "face":
            faces.append(found)
        else:
            strongest[found.concept] = _joined(strongest.get(found.concept), found)
    kept = [*strongest.values(), *_thinned(_frontier(faces))]
    return tuple(sorted(kept, key=lambda found: (found.concept, -found.score)))


def _joined(one: Finding | None, other: Finding) -> Finding:
    """The stronger finding, with the largest value of each measure of both; of two versions the stronger alone."""
    if one is None:
        return other
    stronger, weaker = (other, one) if other.score > one.score else (one, other)
    if not weaker.measures or weaker.version != stronger.version:
        return stronger
    largest = {name: max(value, stronger.measures.get(name, value)) for name, value in weaker.measures.items()}
    return replace(stronger, measures={**stronger.measures, **largest})


def _merits(face: Finding) -> tuple[float, float, float, float]:
    """The higher, the more a rule may ask for it: score, size, youth, chance of being under age."""
    measures = face.measures
    return face.score, measures.get("side", 0.0), -measures.get("age", 1e9), measures.get("under_18", 0.0)


def _frontier(faces: Sequence[Finding]) -> list[Finding]:
    kept: list[tuple[tuple[float, ...], Finding]] = []
    # sorted this way, a face can only be outdone by one that came before it
    for face in sorted(faces, key=_merits, reverse=True):
        merits = _merits(face)
        if not any(all(a >= b for a, b in zip(better, merits, strict=True)) for better, _ in kept):
            kept.append((merits, face))
    return [face for _, face in kept]


def _thinned(faces: list[Finding]) -> list[Finding]:
    """At most MOST_FACES: in turn the next youngest, likeliest under age, surest and largest."""
    if len(faces) <= MOST_FACES:
        return faces
    orders: list[Callable[[Finding], float]] = [
        lambda face: _merits(face)[2],
        lambda face: _merits(face)[3],
        lambda face: _merits(face)[0],
        lambda face: _merits(face)[1],
    ]
    queues = [sorted(faces, key=order, reverse=True) for order in orders]
    chosen: dict[int, Finding] = {}
    for row in zip(*queues, strict=True):
        for face in row:
            chosen.setdefault(id(face), face)
            if len(chosen) == MOST_FACES:
                return list(chosen.values())
    return list(chosen.values())
