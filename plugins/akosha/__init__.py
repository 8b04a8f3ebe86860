"""Akosha: a batch lake for the memories of AI coding sessions."""

__version__ = "0.1.0"
