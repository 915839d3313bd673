"""Examines a running node: the places where trace data gets lost, one finding each, and what to do (docs/doctor.md)."""

from edgeproxy.doctor.examination import examine, find_patient
from edgeproxy.doctor.findings import UNCHECKED, Finding, Verdict, exit_code, worst
from edgeproxy.doctor.patient import Patient

__all__ = ["UNCHECKED", "Finding", "Patient", "Verdict", "examine", "exit_code", "find_patient", "worst"]
