"""File formats: what turns the files that people bring into rows in their JSON Lines form."""
