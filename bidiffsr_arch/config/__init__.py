"""Option files: their YAML, and what each key may hold."""
