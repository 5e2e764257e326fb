"""Models from and to other tools: brevitas models become graphs, graphs become QONNX files and back.

The three functions are reached as ``qfx.from_brevitas``, ``qfx.to_qonnx`` and ``qfx.from_qonnx``; each module
imports its tool only when it is used.
"""
