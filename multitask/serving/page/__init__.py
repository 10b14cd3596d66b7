"""The web page: it sends texts and files to the models and shows their predictions."""
