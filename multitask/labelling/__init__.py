"""Which texts to label next, and which labels are wrong."""
