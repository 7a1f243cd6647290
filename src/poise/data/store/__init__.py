"""Features on disk, in shards beside a manifest."""
