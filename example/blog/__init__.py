"""A small blog that shows what cache_memoize does."""
