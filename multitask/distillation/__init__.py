"""Learning from another model's probabilities: the teacher, its soft targets, and their part in the loss."""
