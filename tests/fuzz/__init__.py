"""Mutated inputs against the readers, guided by the coverage of our code; run by hand, see CONTRIBUTING.md.

Whatever the bytes, a reader answers with samples, with Dropped or with DataError: never another exception, never slowly, never with a
gigabyte, never a file. `engine.py` holds the loop and that rule; every other file is one target.
"""

try:
    import atheris
except ImportError as error:
    raise SystemExit("Fuzzing needs atheris (Linux, macOS): pip install atheris") from error

with atheris.instrument_imports(include=["rsvl_data"]):  # before anything else imports it
    import rsvl_data.pipeline
    import rsvl_data.sources  # noqa: F401
