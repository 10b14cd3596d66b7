"""Serving a trained model: a web page and an HTTP API, batching across requests, and the model's process."""
