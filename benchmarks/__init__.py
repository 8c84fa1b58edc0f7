"""What this library costs: each file here answers one question."""
