"""Groups of media that are alike, and which of them are near-duplicates: what `rigflow cluster` finds.

Two media are as alike as their descriptors are at the best shift in time (`engines.similarity.compare`), so a copy
that begins later or ends sooner is as near as a whole one. Groups are those of average linkage, cut where the mean
similarity of two groups falls below a threshold. That needs no number of groups and no least size of one, leaves alone
what is like nothing else, gives the same groups for the same files, and its one parameter is what `rigflow near`
prints. (Methods of density such as HDBSCAN were no choice: a collection is mostly single media and pairs, where there
is none.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engines.part import Array
from engines.similarity import ALIKE, Descriptors, compare
from schemas.errors import UsageError


@dataclass(frozen=True, slots=True)
class Member:
    """One media of a cluster, by its place in the collection.

    `similarity` is that to the cluster's first member. A near-duplicate names the media it is one of: what it shows at
    `t` seconds, that one shows at `t + offset_s`.
    """

    media: int
    similarity: float
    duplicate_of: int | None = None
    offset_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """Media that are alike, the most typical first. `similarity` is the mean over their pairs, 1.0 for one alone."""

    members: tuple[Member, ...]
    similarity: float


@dataclass(frozen=True, slots=True)
class Pairs:
    """How alike all pairs are: `similarity [N, N]`, and `offset_s [N, N]` of the second in the first."""

    similarity: Array
    offset_s: Array


def find_clusters(media: Sequence[Descriptors], least: float = ALIKE, duplicate: float = 0.95) -> list[Cluster]:
    """The clusters of a collection, largest first, then in the order of their first media.

    Two media are near-duplicates when their similarity is at least `duplicate`; the one with the most windows (of
    equals, the first) is the original. Raises UsageError when two media cannot be compared, or scipy is missing.
    """
    pairs = compare_all(media)
    labels = _groups(pairs.similarity, least)
    groups = [np.flatnonzero(labels == label) for label in range(len(media))]
    originals = _originals(media, pairs.similarity, duplicate)
    clusters = [_cluster(group, pairs, originals) for group in groups if len(group)]
    return sorted(clusters, key=lambda cluster: (-len(cluster.members), min(each.media for each in cluster.members)))


def compare_all(media: Sequence[Descriptors]) -> Pairs:
    """Every media with every other. Raises UsageError when two of them cannot be compared."""
    similarity, offset_s = np.eye(len(media)), np.zeros((len(media), len(media)))
    for one in range(len(media)):
        for other in range(one + 1, len(media)):
            match = compare(media[one], media[other])
            similarity[one, other] = similarity[other, one] = match.similarity
            offset_s[one, other], offset_s[other, one] = match.offset_s, -match.offset_s
    return Pairs(similarity, offset_s)


def _groups(similarity: Array, least: float) -> Array:
    """`[N]` int: each media's group."""
    if len(similarity) < 2:
        return np.zeros(len(similarity), int)
    try:
        from scipy.cluster.hierarchy import fcluster, linkage
        from scipy.spatial.distance import squareform
    except ImportError as error:
        raise UsageError(
            f"clustering needs scipy ({error})", "install the extra, in a checkout by pip install '.[cluster]'"
        ) from error
    distances = squareform(np.clip(1 - similarity, 0, 2), checks=False)
    # what is rounded away must not part equals where `least` is 1
    return np.asarray(fcluster(linkage(distances, "average"), 1 - least + 1e-6, "distance")) - 1


def _originals(media: Sequence[Descriptors], similarity: Array, duplicate: float) -> dict[int, int]:
    """Near-duplicate -> the media it is one of, which is none itself."""
    found: dict[int, int] = {}
    kept: list[int] = []
    for one in sorted(range(len(media)), key=lambda place: (-len(media[place].times), place)):
        nearest = max(kept, key=lambda other: float(similarity[one, other]), default=None)
        if nearest is not None and similarity[one, nearest] >= duplicate:
            found[one] = nearest
        else:
            kept.append(one)
    return found


def _cluster(group: Array, pairs: Pairs, originals: dict[int, int]) -> Cluster:
    inside = pairs.similarity[np.ix_(group, group)]
    # a duplicate is never the most typical one, for its original says the same and more
    typical = np.array([media not in originals or originals[media] not in group for media in group.tolist()])
    first = group[np.where(typical, inside.sum(axis=1).round(6), -np.inf).argmax()]
    members = []
    nearness = pairs.similarity[first].round(6)
    for media in sorted(group.tolist(), key=lambda media: (media != first, -nearness[media], media)):
        original = originals.get(media)
        offset_s = 0.0 if original is None else float(pairs.offset_s[original, media])
        members.append(Member(media, float(pairs.similarity[first, media]), original, offset_s))
    count = len(group)
    return Cluster(tuple(members), float((inside.sum() - count) / (count * count - count)) if count > 1 else 1.0)
