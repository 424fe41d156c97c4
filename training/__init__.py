"""Train and measure the reference detector that ships with Tussis: ``python -m training``.

It is not part of the wheel. ``docs/model-card.md`` has the results. The modules::

    pack        the recordings and their splits
    events      loud, uncertain and quiet parts of a cough recording
    speech      speech from synthesisers        sounds   music, drums, knocks, breath, laughter from formulas
    codecs      phone and messenger codecs      degrade  rooms, equalisers, noise, clipping
    scenes      one training scene              cache    computes scenes once, resumable
    network     the architecture                fit      the training loop, resumable
    batches     the input of a step             heads    attention on long recordings
    validation  the validation data             decide   threshold and temperature
    export      ONNX and manifest
    evaluate    the measurements                card     the model card
"""
