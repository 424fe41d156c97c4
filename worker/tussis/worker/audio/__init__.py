"""A recording's bytes to float32 samples, behind one door.

    from tussis.worker.audio.decode import decode
    from tussis.worker.audio.limits import Limits

``docs/formats.md`` says what is accepted, which decoder reads it, and what each refusal means. This module imports
nothing: settings may build ``Limits`` without loading a codec library.
"""
