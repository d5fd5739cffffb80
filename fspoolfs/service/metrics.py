"""What a Prometheus server scrapes: pools by state, items, space, events, requests.

The cost is bounded: nothing here asks storage, the numbers are those that were seen last. Whoever
shows them may have `fspoolfs.service.counting` look first.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from fspoolfs import __version__
from fspoolfs.model.states import ItemState, PoolState
from fspoolfs.service import item_metrics, limits
from fspoolfs.service.accounts import Standing
from fspoolfs.service.backings import Backings
from fspoolfs.service.events import Event, EventLog
from fspoolfs.service.pools import Pools

#: Upper bounds of the buckets of request times, in seconds: a cached answer to a grace time.
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)


class Metrics:
    """The metrics of one daemon, in a registry of their own."""

    def __init__(self, pools: Pools, backings: Backings, events: EventLog) -> None:
        self._registry = CollectorRegistry()
        self._pools = pools
        self._registry.register(_PoolCollector(pools, backings))
        self._registry.register(_StoreCollector(backings))
        self._events = Counter("fspoolfs_events", "Events by kind.", ["kind"], registry=self._registry)
        self._failures = Counter(
            "fspoolfs_request_failures",
            "Requests that were refused or failed, by errno name.",
            ["errno"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "fspoolfs_request_seconds",
            "Time that requests which change something took.",
            ["request"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        #: Finding a metric by its label takes longer than counting; the labels are few.
        self._event = cache(self._events.labels)
        self._request = cache(self._seconds.labels)
        events.listen(self._count)

    def _count(self, event: Event) -> None:
        self._event(event.kind).inc()

    def observe(self, request: str, seconds: float) -> None:
        """A request was answered after `seconds`."""
        self._request(request).observe(seconds)

    def failed(self, errno_name: str) -> None:
        """A request was refused or failed."""
        self._failures.labels(errno_name).inc()

    def text(self) -> bytes:
        """The exposition format, version 0.0.4."""
        return generate_latest(self._registry) + item_metrics.text(self._pools)


class _PoolCollector:
    """Reads the numbers from the pools at each scrape."""

    def __init__(self, pools: Pools, backings: Backings) -> None:
        self._pools = pools
        self._backings = backings

    def collect(self) -> Iterable[Metric]:
        build = GaugeMetricFamily("fspoolfs_build_info", "The running version.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        states = GaugeMetricFamily("fspoolfs_pool_state", "1 for the pool's state.", labels=["pool", "state"])
        items = GaugeMetricFamily("fspoolfs_pool_items", "Items by state.", labels=["pool", "state"])
        trash = GaugeMetricFamily(
            "fspoolfs_pool_trash_items", "Deleted items not yet purged.", labels=["pool"]
        )
        space = GaugeMetricFamily(
            "fspoolfs_pool_bytes", "Bytes of the pool's file system, as last seen.", labels=["pool", "kind"]
        )
        promised = GaugeMetricFamily(
            "fspoolfs_pool_promised_bytes", "The sum of the capacities of all items.", labels=["pool"]
        )
        quotas = _QuotaMetrics()
        volume = GaugeMetricFamily(
            "fspoolfs_pool_volume_bytes",
            "What the pool's volume is large, and what it takes of the storage below, as last seen.",
            labels=["pool", "kind"],
        )
        for pool in self._pools:
            for state in PoolState:
                states.add_metric([pool.name, state], float(pool.state is state))
            if (backing := self._backings.seen(pool)) is not None:
                volume.add_metric([pool.name, "size"], backing.size)
                volume.add_metric([pool.name, "allocation"], backing.allocation)
            if pool.attached is None:
                continue
            tally = Tally(item.state for item in pool.items.values())
            for item_state in ItemState:
                items.add_metric([pool.name, item_state], tally[item_state])
            trash.add_metric([pool.name], len(pool.trash))
            quotas.add(pool.name, pool.attached.accounts.standings())
            promised.add_metric([pool.name], limits.promised(pool.items.values()).size)
            if pool.space is not None:
                space.add_metric([pool.name, "capacity"], pool.space.capacity)
                space.add_metric([pool.name, "allocation"], pool.space.allocation)
                space.add_metric([pool.name, "available"], pool.space.available)
        yield from (states, items, trash, space, promised, volume, quotas.limits, quotas.taken)


class _QuotaMetrics:
    """What quotas allow and what is taken of them."""

    def __init__(self) -> None:
        labels = ["pool", "subject", "kind"]
        self.limits = GaugeMetricFamily("fspoolfs_pool_quota", "What a quota allows.", labels=labels)
        self.taken = GaugeMetricFamily(
            "fspoolfs_pool_quota_taken", "What is taken of a quota.", labels=labels
        )

    def add(self, pool: str, standings: Iterable[Standing]) -> None:
        for one in standings:
            for kind, limit, taken in (
                ("bytes", one.quota.size, one.size),
                ("items", one.quota.items, one.items),
            ):
                if limit is not None:
                    self.limits.add_metric([pool, one.quota.subject, kind], limit)
                    self.taken.add_metric([pool, one.quota.subject, kind], taken)


class _StoreCollector:
    """What lies below the pools' volumes."""

    def __init__(self, backings: Backings) -> None:
        self._backings = backings

    def collect(self) -> Iterable[Metric]:
        promised = GaugeMetricFamily(
            "fspoolfs_storage_promised_bytes",
            "What the volumes on a storage may still come to take.",
            labels=["store"],
        )
        available = GaugeMetricFamily(
            "fspoolfs_storage_available_bytes", "What is free on the storage below volumes.", labels=["store"]
        )
        for name, store in self._backings.stores.items():
            promised.add_metric([name], store.promised)
            available.add_metric([name], store.available)
        yield from (promised, available)
