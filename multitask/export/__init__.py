"""A trained model for use elsewhere: ONNX export, int8 quantization, and the model card."""
