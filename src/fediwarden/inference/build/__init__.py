"""Building an image-text model: weights as they were pulled become ONNX towers and text embeddings; no weights come from here.

`whole.build` is the one way in. Plain vision transformers are written down without PyTorch; others need it (`exported`).
"""
