"""Search for settings: many short runs, and a config.yml that repeats the best one."""
