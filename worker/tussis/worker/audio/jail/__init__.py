"""Decoding in a process that can do nothing else. ``docs/security.md`` says what it protects and what it does not.

from tussis.worker.audio.jail.decoder import JailedDecoder

process.py    the decoder process: it imports no torch, no settings and no client of a server
lockdown.py   what it gives up before the first recording: Landlock, limits, system calls
bpf.py        the allow-list of system calls
protocol.py   the datagrams between the worker's child and the decoder process
sending.py    the decoder process's end: blocks of samples into the shared memory
receiving.py  the child's end: it copies the blocks, then checks them
host.py       one decoder process: start, end, limits
decoder.py    what the pipeline calls: replaces the process, and tries again after a crash
"""
