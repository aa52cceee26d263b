"""The state that a query reads, as storage defines it."""

from __future__ import annotations

from storage.views import ReadView

__all__ = ["ReadView"]
