"""The commands of `era-sim`, one module each."""
