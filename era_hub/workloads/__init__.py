"""What becomes of the workloads of reservations, one step at a time; `reconciler` repeats them."""
