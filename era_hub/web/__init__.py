"""Pages for people under ``/services/era/``."""

from .pages import page_routes

__all__ = ["page_routes"]
