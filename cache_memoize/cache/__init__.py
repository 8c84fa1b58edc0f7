"""Records, connections and commands: all access to Django caches."""
