"""One key, one token: who may compute, who may store, what invalidates."""
