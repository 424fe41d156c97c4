"""The user's architecture and its export to ONNX. Needs the extra ``models``; no worker imports it."""
