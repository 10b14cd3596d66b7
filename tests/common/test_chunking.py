from hypothesis import given
from hypothesis import strategies as st

from multitask.common.chunking import split_into_chunks


@given(st.lists(st.integers(0, 9)), st.integers(1, 12), st.none() | st.integers(1, 5))
def test_chunks_keep_the_order_respect_both_limits_and_are_as_large_as_possible(sizes, max_size, max_items):
    chunks = list(split_into_chunks(sizes, int, max_size, max_items))
    assert [size for chunk in chunks for size in chunk] == sizes
    for chunk, next_chunk in zip(chunks, [*chunks[1:], None]):
        assert len(chunk) == 1 or (sum(chunk) <= max_size and (max_items is None or len(chunk) <= max_items))
        if next_chunk:
            assert sum(chunk) + next_chunk[0] > max_size or len(chunk) == max_items
