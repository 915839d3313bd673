from bench.profile import parse_samples, render_samples

RAW = """main (worker.py:1);run (loop.c:1);answer (http1.py:290);write (libc.so.6) 30
main (worker.py:1);run (loop.c:1);answer (http1.py:290) 20
main (worker.py:1);run (loop.c:1);0x7f01 (libc.so.6) 25
main (worker.py:1);run (loop.c:1);0x7f02 (libc.so.6) 25
"""


def test_own_time_is_where_a_stack_ends_and_the_rest_is_anywhere_in_it() -> None:
    own, anywhere, total = parse_samples(RAW)
    assert total == 100
    assert own["write (libc.so.6)"] == 30
    assert own["answer (http1.py:290)"] == 20
    assert anywhere["answer (http1.py:290)"] == 50
    assert anywhere["main (worker.py:1)"] == 100


def test_code_without_symbols_is_one_entry() -> None:
    own, _, _ = parse_samples(RAW)
    assert own["(libc.so.6)"] == 50


def test_a_recursive_frame_counts_once_a_sample() -> None:
    _, anywhere, _ = parse_samples("f (a.py:1);f (a.py:1) 3\n")
    assert anywhere["f (a.py:1)"] == 3


def test_frames_that_are_in_every_sample_are_left_out_of_the_second_table() -> None:
    _own, _, called = render_samples(RAW).partition("with all that it called")
    assert "main" not in called
    assert "answer (http1.py:290)" in called


def test_no_samples_are_said_to_be_none() -> None:
    assert render_samples("") == "no samples"
