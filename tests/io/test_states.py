import shutil

import jax.numpy as jnp
import pytest

from jaxalign.errors import InputError
from jaxalign.io.states import States


@pytest.mark.slow
def test_what_a_kill_left_of_a_state_that_was_being_removed_goes(tmp_path):
    states = States(tmp_path, "one")
    for step in (2, 3):
        states.save(step, [jnp.full(4, float(step))])
    states.close()
    # All of an older one is there, or its arrays alone; of a later one its arrays are gone.
    shutil.copytree(tmp_path / "2", tmp_path / "1")
    shutil.copytree(tmp_path / "2/state", tmp_path / "0/state")
    shutil.copytree(tmp_path / "2", tmp_path / "4", ignore=lambda *_: ["state"])
    states = States(tmp_path, "one")
    assert states.steps() == [3, 2]
    assert sorted(x.name for x in tmp_path.iterdir()) == ["2", "3"]
    assert states.load(3, [jnp.zeros(4)])[0].tolist() == [3.0] * 4
    states.close()
    with pytest.raises(InputError, match="must hold states of this training \\(other\\)"):
        States(tmp_path, "other")
