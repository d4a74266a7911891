"""From a trained model to a folder that can be served: formats, quantisation, parity with the source, papers."""
