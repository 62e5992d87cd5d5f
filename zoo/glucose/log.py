"""The log that a ward would have written: one row for each half hour of each patient, and an outcome in the last one."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from sb3_genoffline.envs.clinician import Clinician
from sb3_genoffline.envs.glucose import COLUMNS, STEP, Stays, play

from ..runs.writing import write_text

SHORTEST, LONGEST = 24, 144  # half hours until discharge
LOSES_SENSOR = 0.15


def write_log(path: str | Path, n_patients: int = 400, seed: int = 0) -> int:
    """
    Patients are discharged after half a day to three days; some lose their sensor before, and some come into intensive care.

    :param path: CSV file to write
    :param n_patients: who are treated by :class:`~sb3_genoffline.envs.clinician.Clinician`
    :param seed: of all that is drawn
    :return: rows that were written
    """
    rng = np.random.default_rng((seed, 1))
    stays = play(Clinician(rng), n_patients, LONGEST, seed)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["patient", "time", *COLUMNS, "dose", "outcome"])
    n_rows = 0
    for patient in range(n_patients):
        length, outcome = int(rng.integers(SHORTEST, LONGEST + 1)), "discharged"
        if rng.random() < LOSES_SENSOR:
            length, outcome = int(rng.integers(2, length)), "sensor lost"
        n_rows += _write_patient(writer, stays, patient, length, outcome)
    write_text(Path(path), table.getvalue())
    return n_rows


def _write_patient(writer: Any, stays: Stays, patient: int, length: int, outcome: str) -> int:
    here = int(stays.present[:, patient].sum())
    if here <= length and stays.ended[here - 1, patient]:
        length, outcome = here, "intensive care"
    for step in range(length):
        seen = [f"{value:.5g}" for value in stays.observations[step, patient]]
        last = step == length - 1
        writer.writerow(
            [f"P{patient:04}", step * STEP / 60, *seen, f"{stays.doses[step, patient]:.2f}", outcome if last else ""]
        )
    return length
