"""The run folder's report: one page to look at, and the same facts as files to compute with."""

from trimtune.report.files import write

__all__ = ["write"]
