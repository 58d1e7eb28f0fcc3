"""Families of Prometheus metrics from plain values."""

from collections.abc import Iterable, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

Samples = Iterable[tuple[Sequence[str], float]]  # values of the labels, and the value


def alone(values: Mapping[str, float]) -> Samples:
    """Samples with one label."""
    return (((name,), value) for name, value in values.items())


def counter(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> CounterMetricFamily:
    """A counter; its series end with `_total`."""
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def gauge(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> GaugeMetricFamily:
    """A gauge."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def histogram(
    name: str,
    text: str,
    labels: tuple[str, ...],
    limits: Sequence[float],
    samples: Iterable[tuple[Sequence[str], Sequence[int], float]],
) -> HistogramMetricFamily:
    """A histogram: for each sample the count of each bucket, one more than `limits`, and the sum of its values."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, counts, total in samples:
        buckets, below = [], 0
        for limit, count in zip((*limits, float("inf")), counts, strict=True):
            below += count
            buckets.append(("+Inf" if limit == float("inf") else str(limit), float(below)))
        family.add_metric(values, buckets, total)
    return family
