"""The model in a worker: manifest, contract check, and the onnxruntime session that runs it."""
