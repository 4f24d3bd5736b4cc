"""What hypothesis draws from for more than one file: JSON values, and how long it looks."""

from hypothesis import settings
from hypothesis import strategies as st

thorough = settings(max_examples=100, deadline=None)  # no deadline: a busy machine is no fault of the code

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()

json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=15
)
