"""ONNX Runtime sessions and the model registry: folder in, arrays out. What the arrays mean is the analysers' matter."""
