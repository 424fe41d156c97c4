"""Trains and measures the reference detector that ships with Tussis: ``python -m training``.

Not part of the wheel. ``docs/model-card.md`` says what came out; each module's first line says what it does::

    pack        the recordings and their splits
    events      where a cough recording is loud, uncertain or quiet
    speech      speech from synthesisers        sounds   music, drums, knocks, breath, laughter from formulas
    codecs      what phones and messengers do   degrade  rooms, equalisers, noise, clipping
    scenes      draws one training scene        cache    computes scenes once, resumable
    network     the architecture                fit      the training loop, resumable
    batches     what a step sees                heads    attention on long recordings
    validation  what val is asked                decide   threshold and temperature
    export      ONNX and manifest
    evaluate    the measurements                card     writes them down
"""
