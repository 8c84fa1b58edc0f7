"""How do we talk to a Django cache? Records, connections, commands."""
