"""The machinery behind the tasks. It imports neither model.py nor a task: a model is handed to it."""
