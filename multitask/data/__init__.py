"""From files to batches: read and check rows, split them into words and subwords, and batch windows."""
