"""What holdfast is tested with, for programs that build on it. Never imported by ``import holdfast``."""
