"""Metrics of a server, in Prometheus's text format."""

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

_LATEST = 1024  # requests per path that the quantiles are computed over
_QUANTILES = (0.5, 0.9, 0.95, 0.99)


class Metrics(Collector):
    """Counts and times the requests to `paths`, and reads the state of the queue."""

    def __init__(self, paths: tuple[str, ...], models: Models):
        self.paths, self.models = paths, models
        self.in_progress = 0
        self.seconds: dict[str, deque[float]] = {path: deque(maxlen=_LATEST) for path in paths}
        self.counts, self.sums = dict.fromkeys(paths, 0), dict.fromkeys(paths, 0.0)
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "multitask_requests", "Requests by path and status.", ["path", "status"], registry=self.registry
        )
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def count_requests(self, app: Any) -> Any:
        """Wrap an ASGI application: count and time its requests."""

        async def counted(scope: dict, receive: Any, send: Any) -> None:
            if scope["type"] != "http" or scope["path"] not in self.paths:
                await app(scope, receive, send)
                return
            path, status, started = scope["path"], 500, time.perf_counter()

            async def send_and_note_status(message: dict) -> None:
                nonlocal status
                status = message.get("status", status)
                await send(message)

            self.in_progress += 1
            try:
                await app(scope, receive, send_and_note_status)
            finally:
                self.in_progress -= 1
                seconds = time.perf_counter() - started
                self.requests.labels(path, status).inc()
                self.seconds[path].append(seconds)
                self.counts[path] += 1
                self.sums[path] += seconds

        return counted

    def collect(self) -> Iterator[Any]:
        help_text = f"Seconds from request to end of answer; quantiles over the last {_LATEST:,}."
        latency = SummaryMetricFamily("multitask_request_seconds", help_text)
        for path, latest in self.seconds.items():
            if latest:
                for quantile, value in zip(_QUANTILES, np.quantile(latest, _QUANTILES).tolist()):
                    latency.add_sample(latency.name, {"path": path, "quantile": str(quantile)}, value)
            latency.add_sample(f"{latency.name}_count", {"path": path}, self.counts[path])
            latency.add_sample(f"{latency.name}_sum", {"path": path}, self.sums[path])
        yield latency
        yield GaugeMetricFamily("multitask_requests_in_progress", "Requests in progress.", self.in_progress)
        if self.models.main is None:
            return
        queue = self.models.main.batcher
        yield GaugeMetricFamily("multitask_queue_length", "Texts accepted and not yet answered.", queue.rows)
        yield GaugeMetricFamily("multitask_queue_tokens", "Estimate of their tokens.", queue.cost)
        yield GaugeMetricFamily(
            "multitask_queue_tokens_limit", "Requests beyond it are refused.", queue.limits.waiting_cost
        )
        yield CounterMetricFamily("multitask_batches", "Batches computed.", queue.batches)
        yield CounterMetricFamily("multitask_texts", "Texts in these batches.", queue.batched_rows)
