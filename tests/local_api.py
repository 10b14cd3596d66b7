"""The HTTP API in the process of a test, over a stand-in for the model."""

import asyncio

import httpx
from standing_in import Reader

from multitask.serving.api import PATHS, application
from multitask.serving.metrics import Metrics
from multitask.serving.request_checks import BodyLimit
from multitask.serving.service import Models, Service
from multitask.serving.worker import answer_batch, load_predictor


class LocalWorker:
    """A Worker without a process; each batch waits for the event `go`, if any."""

    identity = None

    def __init__(self, go=None):
        self.go = go

    def labels(self):
        return Reader.labels

    async def run(self, items):
        if self.go:
            await self.go.wait()
        return answer_batch(Reader(), items)

    def again(self):
        return self

    def kill(self):
        pass


def run(main, limits, worker=None, trained=True):
    """Call main(client, models) with a client of an application over the Reader."""

    async def call():
        service = Service("runs/x/model", worker or LocalWorker(), limits) if trained else None
        models = Models(service, [], limits, load_predictor)
        metrics = Metrics(PATHS, models)
        api = application(models, limits, metrics, "http://server")
        app = metrics.count_requests(BodyLimit(api, PATHS, limits))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
            async with asyncio.timeout(20):
                return await main(client, models)

    return asyncio.run(call())
