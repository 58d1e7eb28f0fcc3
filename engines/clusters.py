"""Groups similar media and finds near-duplicates, for `rigflow cluster`.

The similarity of two media is that of their descriptors at the best shift in time (`engines.similarity.compare`), so a
copy that begins later or ends earlier is as similar as a complete one. Average linkage makes the groups: two groups
stay apart if their mean similarity is below a threshold. It needs no number of groups and no minimum size, puts a media
that is similar to nothing into a group of its own, gives the same groups for the same files, and its one parameter is
the number that `rigflow near` prints. (HDBSCAN and other methods of density do not fit: most media of a collection are
single or in pairs, which have no density.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engines.extras import Needs, imported
from engines.part import Array
from engines.similarity import ALIKE, Descriptors, compare


@dataclass(frozen=True, slots=True)
class Member:
    """One media of a cluster, by its place in the collection.

    `similarity` is the similarity to the first member. `duplicate_of`: the original of a near-duplicate; the picture of
    the near-duplicate at `t` seconds is that of the original at `t + offset_s`.
    """

    media: int
    similarity: float
    duplicate_of: int | None = None
    offset_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """Similar media, the most typical one first. `similarity` is the mean over all pairs; 1.0 for a single media."""

    members: tuple[Member, ...]
    similarity: float


@dataclass(frozen=True, slots=True)
class Pairs:
    """All pairs of a collection: `similarity [N, N]`, and `offset_s [N, N]`, the shift of the second in the first."""

    similarity: Array
    offset_s: Array


def find_clusters(media: Sequence[Descriptors], least: float = ALIKE, duplicate: float = 0.95) -> list[Cluster]:
    """Find the clusters of a collection: largest first, equal ones in the order of their first media.

    Two media are near-duplicates if their similarity is at least `duplicate`. The original is the one with the most
    windows, of equal ones the first. Raises UsageError if two media cannot be compared, PluginMissing without scipy.
    """
    pairs = compare_all(media)
    labels = groups_of(pairs.similarity, least)
    groups = [np.flatnonzero(labels == label) for label in range(len(media))]
    originals = _originals(media, pairs.similarity, duplicate)
    clusters = [_cluster(group, pairs, originals) for group in groups if len(group)]
    return sorted(clusters, key=lambda cluster: (-len(cluster.members), min(each.media for each in cluster.members)))


def compare_all(media: Sequence[Descriptors]) -> Pairs:
    """Compare all pairs of media. Raises UsageError if two of them cannot be compared."""
    similarity, offset_s = np.eye(len(media)), np.zeros((len(media), len(media)))
    for one in range(len(media)):
        for other in range(one + 1, len(media)):
            match = compare(media[one], media[other])
            similarity[one, other] = similarity[other, one] = match.similarity
            offset_s[one, other], offset_s[other, one] = match.offset_s, -match.offset_s
    return Pairs(similarity, offset_s)


CLUSTERING = Needs(("scipy.cluster.hierarchy", "scipy.spatial.distance"), "cluster")


def clustering_library() -> Any:
    """Return scipy's module of clusters. Raises PluginMissing without scipy."""
    return imported("scipy.cluster.hierarchy", "clustering", "cluster")


def groups_of(similarity: Array, least: float, count: int = 0) -> Array:
    """Return the number of the group of each row of `similarity [N, N]`, `[N]` int, by average linkage.

    `count`: how many groups there are at most, instead of the `least` similarity; 0: unknown. Raises PluginMissing.
    """
    if len(similarity) < 2:
        return np.zeros(len(similarity), int)
    hierarchy = clustering_library()
    squareform = imported("scipy.spatial.distance", "clustering", "cluster").squareform
    distances = squareform(np.clip(1 - similarity, 0, 2), checks=False)
    tree = hierarchy.linkage(distances, "average")
    if count:
        return np.asarray(hierarchy.fcluster(tree, count, "maxclust"), np.int64) - 1
    # 1e-6: with `least` 1, rounding must not separate equal media
    return np.asarray(hierarchy.fcluster(tree, 1 - least + 1e-6, "distance"), np.int64) - 1


def _originals(media: Sequence[Descriptors], similarity: Array, duplicate: float) -> dict[int, int]:
    """Return near-duplicate -> its original; an original is not a near-duplicate itself."""
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
    # a near-duplicate is never the first member, because its original has the same windows and more
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
