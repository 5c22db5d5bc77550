"""Spans that wait for a push: bounded, in order, and nothing is lost by a push that failed."""

from __future__ import annotations

from kit.backlog import Backlog
from kit.tracing import Span


def span(number: int) -> Span:
    return Span(1, number, 0, "x", 0.0, 1.0, good=True, attributes={})


def numbers(backlog: Backlog) -> list[int]:
    return [one.id for one in backlog]


def filled(count: int, bound: int) -> Backlog:
    made = Backlog(bound)
    for number in range(1, count + 1):
        made.add(span(number))
    return made


def test_beyond_the_bound_the_oldest_go_and_are_counted():
    made = filled(5, bound=3)
    assert (numbers(made), made.dropped) == ([3, 4, 5], 2)


def test_they_are_taken_oldest_first_and_at_most_as_many_as_there_are():
    made = filled(3, bound=3)
    assert [one.id for one in made.take(2)] == [1, 2]
    assert [one.id for one in made.take(2)] == [3]
    assert made.take(2) == []


def test_what_could_not_be_pushed_waits_again_in_its_place():
    made = filled(3, bound=5)
    taken = made.take(2)
    made.add(span(4))
    made.give_back(taken)
    assert (numbers(made), made.dropped) == ([1, 2, 3, 4], 0)


def test_what_does_not_fit_any_more_when_it_comes_back_is_given_up_the_oldest_first():
    made = filled(3, bound=3)
    taken = made.take(3)
    made.add(span(4))
    made.add(span(5))
    made.give_back(taken)
    assert (numbers(made), made.dropped) == ([3, 4, 5], 2)
    made.give_back([span(9)])
    assert (numbers(made), made.dropped) == ([3, 4, 5], 3)


def test_a_push_is_asked_for_when_half_of_the_room_is_taken():
    made, asked = Backlog(4), []
    made.wanted = lambda: asked.append(len(made))
    for number in range(4):
        made.add(span(number))
    assert asked == [2]
