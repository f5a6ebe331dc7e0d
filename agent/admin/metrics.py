"""What `/metrics` tells: a handful of numbers, asked for when somebody looks."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

Measure = Callable[[], Mapping[str, tuple[str, float]]]
"""Gives, by name, a number and what it counts."""


class _Gauges(Collector):
    def __init__(self, measure: Measure) -> None:
        self._measure = measure

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Ask now."""
        for name, (meaning, value) in self._measure().items():
            yield GaugeMetricFamily(f"trunkline_{name}", meaning, value=value)


def registry(measure: Measure) -> CollectorRegistry:
    """Make a registry of our own: nothing global, nothing measured between two looks."""
    result = CollectorRegistry(auto_describe=False)
    result.register(_Gauges(measure))
    return result
