"""What a server did, in Prometheus's text form."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.registry import Collector

from multitask.serving.service import Models

_LATEST = 1024  # requests of a path, whose quantiles are given
_QUANTILES = (0.5, 0.9, 0.95, 0.99)


class Metrics(Collector):
    """Counts and times the requests of `paths`, and collects what is known of the queue."""

    def __init__(self, paths: tuple[str, ...], models: Models):
        self.paths, self.models = paths, models
        self.in_progress = 0
        self.seconds: dict[str, deque[float]] = {path: deque(maxlen=_LATEST) for path in paths}
        self.counts, self.sums = dict.fromkeys(paths, 0), dict.fromkeys(paths, 0.0)
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "multitask_requests", "Requests, by path and status.", ["path", "status"], registry=self.registry
        )
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def around(self, app: Any) -> Any:
        """The application, whose requests are counted."""

        async def counted(scope: dict, receive: Any, send: Any) -> None:
            if scope["type"] != "http" or scope["path"] not in self.paths:
                await app(scope, receive, send)
                return
            status = 500

            async def noted(message: dict) -> None:
                nonlocal status
                status = message.get("status", status)
                await send(message)

            begun = time.perf_counter()
            self.in_progress += 1
            try:
                await app(scope, receive, noted)
            finally:
                self.in_progress -= 1
                self._note(scope["path"], status, time.perf_counter() - begun)

        return counted

    def collect(self) -> Iterator[Any]:
        latency = SummaryMetricFamily(
            "multitask_request_seconds",
            f"Seconds to the end of the answer; quantiles of the last {_LATEST:,}.",
        )
        for path, latest in self.seconds.items():
            if latest:
                for quantile, value in zip(_QUANTILES, np.quantile(latest, _QUANTILES).tolist()):
                    latency.add_sample(latency.name, {"path": path, "quantile": str(quantile)}, value)
            latency.add_sample(f"{latency.name}_count", {"path": path}, self.counts[path])
            latency.add_sample(f"{latency.name}_sum", {"path": path}, self.sums[path])
        yield latency
        yield GaugeMetricFamily(
            "multitask_requests_in_progress", "Requests without an answer.", self.in_progress
        )
        main = self.models.main
        if main is None:
            return
        queue = main.batcher
        yield GaugeMetricFamily("multitask_queue_length", "Texts accepted and not yet answered.", queue.rows)
        yield GaugeMetricFamily("multitask_queue_tokens", "About how many tokens they are.", queue.cost)
        yield GaugeMetricFamily(
            "multitask_queue_tokens_limit", "Where requests are refused as busy.", queue.limits.waiting_cost
        )
        yield CounterMetricFamily("multitask_batches", "Batches that the model read.", queue.batches)
        yield CounterMetricFamily("multitask_texts", "Texts in them.", queue.batched)

    def _note(self, path: str, status: int, seconds: float) -> None:
        self.requests.labels(path, status).inc()
        self.seconds[path].append(seconds)
        self.counts[path] += 1
        self.sums[path] += seconds
