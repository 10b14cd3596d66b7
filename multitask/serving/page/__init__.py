"""The web page: what it asks of the models, and the HTML of their predictions."""
