"""`zoo export-data` writes a dataset where D4RL's loaders look for one."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from sb3_genoffline import load_dataset
from zoo.__main__ import main


def test_a_file_holds_the_dataset_in_d4rls_layout(dataset_id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, data = tmp_path / "d4rl" / "hopper_medium_replay-v2.hdf5", load_dataset(dataset_id)
    main(["export-data", dataset_id, "-o", str(file)])
    assert f"{len(data.rewards):,} steps in {len(data.episode_ends):,} episodes" in capsys.readouterr().out
    with h5py.File(file) as written:
        for name in ("observations", "actions", "rewards"):
            np.testing.assert_array_equal(written[name][()], getattr(data, name))
        np.testing.assert_array_equal(written["terminals"][()], data.terminations)
        ends = np.flatnonzero(written["terminals"][()] | written["timeouts"][()])
    np.testing.assert_array_equal(ends, data.episode_ends - 1)  # where D4RL's loaders see one, since they compare no rows
    assert load_dataset(file).fingerprint == data.fingerprint
    with pytest.raises(SystemExit, match="exists already: --overwrite replaces it"):
        main(["export-data", dataset_id, "-o", str(file)])
    main(["export-data", dataset_id, "-o", str(file), "--overwrite"])
    with pytest.raises(SystemExit, match="is not on this machine"):
        main(["export-data", "genoffline/hopper/expert-v1", "-o", str(tmp_path / "other.hdf5")])
