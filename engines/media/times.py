"""Corrects the times at which a stream's packets are shown, before it is cut.

Most sources state them. Some repeat a pts, step back for a packet, start again in mid-file (joined or wrapped transport
streams), or store decoding times only (AVI, ASF, raw streams). Wrong times are corrected one by one, with a note; all
other times stay as they are.
"""

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

UNKNOWN = -(1 << 63)  # FFmpeg's AV_NOPTS_VALUE
DEEPEST_REORDERING = 32  # places between decoding and showing: 16 frames of two fields, the most any codec allows
_LONGEST_GAP_S, _FAR_S = 600, 10
_OFF_BY = 2.5  # frames: FFmpeg may give a time to the packet before or after the one that has it
_FEWEST_TIMES = 64  # a stream with times for fewer than one in so many packets has none
_MOST_JOINS = 16  # a stream that starts again more often than once in so many packets has no times
_USUAL_RATE, _HIGHEST_RATE = Fraction(25), 500  # FFmpeg guesses 1000 a second if it only knows milliseconds


@dataclass(frozen=True, slots=True)
class Stamps:
    """The times that a container states for the packets of a stream, in decoding order.

    `pts` and `dts`, `[P]` int64, are UNKNOWN where it states none. `shown`: which packets give a frame that is shown.
    `step` is the time from one frame to the next at the stream's rate, in units of `time_base`. `depth`: how many
    frames the decoder holds back; `may_reorder`: its codec allows it. `decoding_order`: the container has decoding
    times only. `packed`: packets sometimes hold two frames, so that FFmpeg computes times that belong to their
    neighbours. `keys`: the keyframes.
    """

    pts: Times
    dts: Times
    shown: Mask
    time_base: Fraction
    step: Fraction
    depth: int
    may_reorder: bool
    decoding_order: bool
    packed: bool = False
    keys: Mask | None = None

    @property
    def restarts(self) -> Mask:
        """Return the keyframes with an earlier decoding time than the packet before them: another stream was joined
        here.
        """
        if self.keys is None or not self.all_dts:
            return np.zeros(len(self.dts), bool)
        return self.keys & (np.diff(self.dts, prepend=self.dts[:1] - 1) <= 0)

    @property
    def all_dts(self) -> bool:
        """Return whether each packet has a decoding time."""
        return bool((self.dts != UNKNOWN).all())


@dataclass(frozen=True, slots=True)
class Settled:
    """`pts [P]` int64 of all packets in decoding order; no two shown packets have the same.

    `by_rank`: frames take the times of the shown packets in rising order as they leave the decoder, because only the
    decoder knows the order in which they are shown. `known`: the times are the container's.
    """

    pts: Times
    by_rank: bool
    known: bool
    notes: tuple[str, ...] = ()


def frame_rate(*rates: Fraction | None, seen: Fraction | None = None) -> Fraction:
    """Return the first plausible one of FFmpeg's rates, or the one nearest to `seen`; otherwise 25 a second."""
    possible = [rate for rate in rates if rate and 0 < rate < _HIGHEST_RATE]
    if seen and possible:
        return min(possible, key=lambda rate: max(rate / seen, seen / rate))
    return possible[0] if possible else _USUAL_RATE


def unwrapped(times: Times, bits: int) -> Times:
    """Return times of a clock of so many bits as those of one that does not start over: none leaps by half of it."""
    known, found = times != UNKNOWN, times.copy()
    found[known] = np.unwrap(times[known], period=1 << bits)
    return found


def gaps_between(times: Times) -> Times:
    """Return the differences of times that differ, in rising order of the times."""
    ordered = np.sort(times)  # `np.unique` takes 20 times as long
    gaps: Times = ordered[1:] - ordered[:-1]
    return gaps[gaps > 0]


def settle(stamps: Stamps) -> Settled:
    """Return the corrected times of all packets."""
    known = stamps.pts != UNKNOWN
    pts = _with_last(np.where(known, stamps.pts, 0), known, stamps)
    # FFmpeg may compute a pts for a container without one: those are not in decoding order
    worked_out = bool(np.any(np.diff(pts[known & stamps.shown]) < 0))
    by_rank = stamps.packed or (stamps.decoding_order and stamps.depth > 0 and not worked_out)
    if stamps.packed and worked_out:
        pts[known] = np.sort(pts[known])
    elif by_rank and stamps.all_dts:
        pts, known = _delayed(stamps.dts, stamps), np.ones(len(known), bool)
    elif (spread := _spread(stamps)) is not None:
        note = "its container has times of a few packets only: the others are spread evenly between them"
        made = _repaired(stamps, spread, np.ones(len(known), bool), stamps.depth > 0)
        return replace(made, notes=(note, *made.notes))
    elif not known.all():
        stored = np.where(known, stamps.pts, stamps.dts)
        by_rank = by_rank or bool((stamps.depth > 0) and known.sum() < len(known) / 2)
        known = stored != UNKNOWN
        pts = np.where(known, stored, 0)
    shown = stamps.shown
    if not shown.any() or known.sum() < len(known) / 2 or _mostly_repeat(pts[shown & known]):
        note = "its packets have no times of their own: frames are numbered at its frame rate"
        return Settled(_numbered(stamps), (stamps.depth > 0), False, (note,))
    return _repaired(stamps, pts, known, by_rank)


def _with_last(pts: Times, known: Mask, stamps: Stamps) -> Times:
    """Return the times with that of the last packet, where FFmpeg does not know it.

    FFmpeg computes a missing pts from the decoding time of a packet behind it. None is behind the last one, which gets
    its own decoding time: that of a frame before it.
    """
    repeats = len(pts) > 2 and stamps.shown[-1] and stamps.dts[-1] == pts[-1] == pts[:-1].max()
    if not repeats or not known.all() or np.array_equal(stamps.dts, stamps.pts):
        return pts
    gaps = gaps_between(pts)
    if not len(gaps):
        return pts
    step = int(np.median(gaps))
    return np.append(pts[:-1], pts[-1] + step)


def _spread(stamps: Stamps) -> Times | None:
    """Return rising times where less than half of the packets have any.

    None if there are too few, or they fall, or the frame rate alone explains them.

    MPEG-PS has a time for the first packet that begins in each of its packs, which are 2 kB as a rule.
    """
    if 2 * np.sum(stamps.pts != UNKNOWN) >= len(stamps.pts):
        return None  # some containers state when frames are shown, and not when they are decoded
    places = np.flatnonzero(stamps.dts != UNKNOWN)
    if not len(stamps.dts) / _FEWEST_TIMES <= len(places) < len(stamps.dts) / 2:
        return None
    stored = stamps.dts[places]
    if np.any(np.diff(stored) < 0):
        return None
    stored, firsts = np.unique(stored, return_index=True)  # a demuxer may give a time to two packets
    places = places[firsts]
    if len(places) < 2:
        return None
    off = stored - stored[0] - (places - places[0]) * float(stamps.step)
    if np.ptp(off) <= _OFF_BY * float(stamps.step):
        return None  # the frame rate is right, and even exact
    step = (stored[-1] - stored[0]) / (places[-1] - places[0])
    numbers = np.arange(len(stamps.dts))
    dts: Times = np.rint(
        np.interp(numbers, places, stored)
        + step * (np.minimum(numbers - places[0], 0) + np.maximum(numbers - places[-1], 0))
    ).astype(np.int64)
    if not stamps.depth:
        return dts
    late, first = _delayed(dts, stamps), stamps.pts[0]
    return late if first == UNKNOWN else late + (first - late[0])


def _delayed(dts: Times, stamps: Stamps) -> Times:
    """Return rising pts for packets that have decoding times only: these are `depth` frames too early.

    At a variable rate, frame k is shown when the packet `depth` places later is decoded. The first frame stays at the
    first time, and the last frames, which no packet follows, have the usual distance.
    """
    ahead = min(stamps.depth, len(dts) - 1)
    step = max(1, int(np.median(np.diff(dts)))) if ahead else 0
    late: Times = np.concatenate([dts[ahead:], dts[-1] + step * np.arange(1, ahead + 1)])
    late += dts[0] - dts[ahead]
    return late


def _repaired(stamps: Stamps, pts: Times, known: Mask, by_rank: bool) -> Settled:
    gaps = gaps_between(pts[known & stamps.shown])
    step = int(np.median(gaps)) if len(gaps) else max(1, round(stamps.step))
    pts = pts.copy()
    deepest = DEEPEST_REORDERING if stamps.may_reorder and not by_rank else 0
    pts[~known] = pts[np.maximum.accumulate(np.where(known, np.arange(len(pts)), np.argmax(known)))][~known]
    reach, longest = stamps.depth + 2 if deepest else 1, round(_LONGEST_GAP_S / stamps.time_base)
    joined = _join(pts, stamps.restarts, reach, step, longest)
    odd = _odd(pts, known, deepest, 2 * stamps.depth + 2, round(_FAR_S / stamps.time_base))
    if odd.any():
        kept = np.flatnonzero(~odd)
        places = np.flatnonzero(odd)
        before = np.clip(np.searchsorted(kept, places) - 1, 0, len(kept) - 1)
        after = np.clip(before + 1, 0, len(kept) - 1)
        gap = np.clip((pts[kept[after]] - pts[kept[before]]) // 2, 1, step)
        pts[odd] = pts[kept[before]] + np.where(places < kept[0], step * (places - kept[0]), gap)
    risen = _rise(pts, stamps.shown)
    changes = {
        f"{odd.sum()} packets had no time, or one far from their neighbours': repaired": odd.any(),
        f"the times start anew or leap {joined} times: what follows was moved to go on": joined,
        f"{risen} frames had the time of another: moved by the least": risen,
    }
    notes = tuple(note for note, happened in changes.items() if happened)
    rank = np.argsort(np.argsort(pts, kind="stable"))
    chaos = _MOST_JOINS * joined > len(pts)
    if chaos or (not by_rank and np.abs(rank - np.arange(len(pts))).max() > DEEPEST_REORDERING):
        note = "its times are out of order: frames are numbered at its frame rate"
        return Settled(_numbered(stamps), (stamps.depth > 0), False, (note,))
    return Settled(pts, by_rank, True, notes)


def _mostly_repeat(pts: Times) -> bool:
    return bool(np.sum(np.diff(pts) != 0) < (len(pts) - 1) / 2)


def _numbered(stamps: Stamps) -> Times:
    stated = np.concatenate([stamps.pts, stamps.dts])
    first = next(iter(stated[stated != UNKNOWN].tolist()), 0)
    places: list[int] = (np.cumsum(stamps.shown) - stamps.shown).tolist()
    return np.array([first + int(place * stamps.step) for place in places], np.int64)


def _odd(pts: Times, known: Mask, deepest: int, usual: int, far: int) -> Mask:
    """Return the packets without a time, and single ones far from the times around them.

    A packet may be shown `deepest` places from where it is decoded, and up to `usual` ones if that is `far` outside.
    """
    odd = ~known
    kept = np.flatnonzero(known)
    values = pts[kept]
    if np.all(values[1:] >= values[:-1]):
        return odd
    rank = np.argsort(np.argsort(values, kind="stable"))
    reach = deepest + 1
    displaced = np.abs(rank - np.arange(len(rank)))
    for at in np.flatnonzero(displaced > min(deepest, usual)):
        before, after = values[max(0, at - reach) : at], values[at + 1 : at + 1 + reach]
        around = np.concatenate([before, after])
        slack = 0 if displaced[at] > deepest else far
        if len(before) and len(after) and not around.min() - slack <= values[at] <= around.max() + slack:
            odd[kept[at]] = True
    return odd


def _join(pts: Times, restarts: Mask, reach: int, step: int, longest: int) -> int:
    """Move all times after a point where they are all smaller than before, or much greater; return the number of
    points.

    A joined stream that `restarts` may begin shortly before the end of the one before it.
    """
    joined = 0
    places = np.flatnonzero((np.diff(pts) < 0) | (np.diff(pts) > longest) | restarts[1:]) + 1
    if not _may_join(pts, restarts, reach, longest, places):  # as a rule: the loop takes 10 us a frame
        return 0
    for at in places:
        before, after = pts[max(0, at - reach) : at], pts[at : at + reach]
        single = reach == 1 and at + 1 < len(pts) and pts[at + 1] > pts[at - 1]  # one odd packet among good ones
        overlaps = restarts[at] and after.min() <= before.max()
        if overlaps or (not single and (after.max() < before.min() or after.min() - before.max() > longest)):
            pts[at:] += before.max() + step - after.min()
            joined += 1
    return joined


def _may_join(pts: Times, restarts: Mask, reach: int, longest: int, places: Times) -> bool:
    """Return whether the times around any of these places are as at a joint."""
    before_min = before_max = pts[places - 1]
    after_min = after_max = pts[places]
    for step in range(1, reach):
        before, after = pts[np.maximum(places - 1 - step, 0)], pts[np.minimum(places + step, len(pts) - 1)]
        before_min, before_max = np.minimum(before_min, before), np.maximum(before_max, before)
        after_min, after_max = np.minimum(after_min, after), np.maximum(after_max, after)
    overlaps = restarts[places] & (after_min <= before_max)
    return bool(np.any(overlaps | (after_max < before_min) | (after_min - before_max > longest)))


def _rise(pts: Times, shown: Mask) -> int:
    """Move shown packets that have the time of another to the next free time; return how many there were."""
    order = np.flatnonzero(shown)[np.argsort(pts[shown], kind="stable")]
    values = pts[order]
    if np.all(values[1:] > values[:-1]):
        return 0
    # t[i] = max(t[i], t[i - 1] + 1)
    places = np.arange(len(values))
    risen = np.maximum.accumulate(values - places) + places
    pts[order] = risen
    return int((risen != values).sum())
