"""Counts and times for Prometheus. No prompt, key or address is among them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """What is counted of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "sampan_requests", "Requests answered", ["route", "method", "status"], registry=self._registry
        )
        self.request_s = Histogram(
            "sampan_request_seconds", "Time until the last byte", ["route"], buckets=_SECONDS, registry=self._registry
        )
        self.pictures = Counter("sampan_pictures", "Pictures by how they ended", ["state"], registry=self._registry)
        self.step_s = Counter("sampan_step_seconds", "Time of the engine's steps", ["what"], registry=self._registry)
        self.steps = Counter("sampan_steps", "Steps of the engine", ["what"], registry=self._registry)
        self.rows = Histogram(
            "sampan_rows_together",
            "Rows of tokens written in one step",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self._registry,
        )
        self.dropped = Counter(
            "sampan_connections_dropped", "Connections that were too slow", ["why"], registry=self._registry
        )
        self.under_way = Gauge(
            "sampan_pictures_under_way", "Pictures that wait or are at work", registry=self._registry
        )
        self.waiting = Gauge(
            "sampan_pictures_waiting", "Pictures of which nothing is done yet", registry=self._registry
        )

    def step(self, what: str, seconds: float, rows: int) -> None:
        """Count a step of the engine."""
        self.step_s.labels(what).inc(seconds)
        self.steps.labels(what).inc()
        if what == "writing":
            self.rows.observe(rows)

    def text(self) -> bytes:
        """Return everything, as Prometheus reads it."""
        return generate_latest(self._registry)
