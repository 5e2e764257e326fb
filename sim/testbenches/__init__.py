"""cocotb test modules that qfx.sim runs inside the simulator; they can also be run by hand
(docs/verify.md)."""
