"""Decoding: the bytes of a recording become float32 samples. The only entry point is ``decode``.

    from tussis.worker.audio.decode import decode
    from tussis.worker.audio.limits import Limits

``docs/formats.md`` lists the accepted formats, the decoder of each, and the meaning of each error. This module imports
nothing, so that settings can build ``Limits`` without loading a codec library.
"""
