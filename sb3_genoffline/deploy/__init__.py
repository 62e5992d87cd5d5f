"""Acting without this library: a policy as an ONNX file."""
