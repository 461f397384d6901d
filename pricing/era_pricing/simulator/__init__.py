"""Simulations of the market: `era-sim`, and the same calls from Python."""
