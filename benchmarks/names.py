"""The names that studies, their tables and their pictures share, as the records have them."""

A, B, JOINT = "task A alone", "task B alone", "both in one model"
TWO = "two models"
OURS, DEFAULTS, TUNED = "this project", "Trainer", "Trainer, tuned"
RANDOM, LEAST_SURE = "random", "tags, least sure word"  # orders of texts to label
# test scores, and the heads of their columns
SCORE_TITLES = {"accuracy": "task A accuracy", "entity_f1": "task B F1", "exact_match": "whole sentences"}
