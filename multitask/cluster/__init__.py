"""How is a large input predicted? In shards, by the workers of a cluster, each shard written as one file."""
