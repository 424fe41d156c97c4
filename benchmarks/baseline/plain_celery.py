"""A simple cough pipeline for comparison, without Tussis: Celery, boto3, onnxruntime, SQLAlchemy."""

from __future__ import annotations

import os
from typing import Any

import boto3
import numpy as np
import onnxruntime
from botocore.config import Config
from celery import Celery
from celery.signals import worker_process_init
from sqlalchemy import ForeignKey, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

app = Celery("plain", broker=os.environ["BASELINE_BROKER_URL"])
app.conf.task_ignore_result = True
engine = create_engine(os.environ["BASELINE_DATABASE_URL"])


class Base(DeclarativeBase):
    """The base class of the tables."""


class Recording(Base):
    """The result of one recording."""

    __tablename__ = "recordings"
    id: Mapped[int] = mapped_column(primary_key=True)
    batch: Mapped[str] = mapped_column(index=True)
    key: Mapped[str]
    probability: Mapped[float]
    segments: Mapped[list[Segment]] = relationship()


class Segment(Base):
    """The result of one segment."""

    __tablename__ = "segments"
    id: Mapped[int] = mapped_column(primary_key=True)
    recording_id: Mapped[int] = mapped_column(ForeignKey("recordings.id"), index=True)
    start_s: Mapped[float]
    probability: Mapped[float]


class Child:
    """The objects that each child process creates after the fork."""

    session: Any
    s3: Any
    spectrograms: Any


@worker_process_init.connect  # type: ignore[untyped-decorator]  # Celery ships no types
def start(**_: object) -> None:
    """Load the model and connect. torch is imported here: threads that it starts before the fork hang the children."""
    from signal_path import spectrograms

    Child.spectrograms = spectrograms
    engine.dispose(close=False)
    Child.session = onnxruntime.InferenceSession(os.environ["BASELINE_MODEL"], providers=["CPUExecutionProvider"])
    Child.s3 = boto3.client(
        "s3", endpoint_url=os.environ["TUSSIS_S3_ENDPOINT_URL"], config=Config(s3={"addressing_style": "path"})
    )


@app.task(name="plain.analyze")  # type: ignore[untyped-decorator]  # as above
def analyze(batch: str, bucket: str, key: str) -> None:
    """Download and preprocess a recording, run the model on it, store the result."""
    data = Child.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    images = Child.spectrograms(data)
    mask = np.ones(images.shape[:2], dtype=bool)
    bag, each = Child.session.run(
        ["bag_probability", "segment_probabilities"], {"spectrograms": images, "segment_mask": mask}
    )
    with Session(engine) as session:
        recording = Recording(batch=batch, key=key, probability=float(bag[0]))
        session.add(recording)
        for index, probability in enumerate(each[0]):
            recording.segments.append(Segment(start_s=index * 0.5, probability=float(probability)))
        session.commit()


if __name__ == "__main__":
    Base.metadata.create_all(engine)
