"""Simulation of generated hardware: the Verilator runner, cocotb testbenches, and the fuzzer."""
