"""holdfast's durability inside other frameworks, which keep their own programming model."""
