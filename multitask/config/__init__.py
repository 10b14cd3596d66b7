"""The settings of a run: their schema, how config.yml is read, and the text of --help."""
