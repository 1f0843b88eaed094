"""The plan of leases: pure functions over a table."""

from __future__ import annotations

import random

import pytest

from workflow.adapters.support.lease_plan import LONGEST_LOOK, Shares, Watch
from workflow.protocols import LeaseRow, LeaseTable, MemberRow


def table(held: dict[str, str], wants: dict[str, set[str]], beat: int = 1) -> LeaseTable:
    """Role to holder, member to what it waits for; everybody at the same beat."""
    return LeaseTable(
        {member: MemberRow(beat, frozenset(roles)) for member, roles in wants.items()},
        {role: LeaseRow(1, holder, beat if holder else 0) for role, holder in held.items()},
    )


def shares(held: dict[str, str], wants: dict[str, set[str]]) -> Shares:
    return Shares.of(table(held, wants), wants)


# --- shares --------------------------------------------------------------------------------------------------------


def test_a_free_role_goes_to_who_waits_and_holds_the_fewest() -> None:
    plan = shares({"x": "a", "y": "a", "z": "b"}, {"a": {"r"}, "b": {"r"}, "c": set()})
    assert plan.allot({"r"}) == {"r": "b"}


def test_free_roles_are_spread() -> None:
    roles = {f"r{i}" for i in range(9)}
    allotted = shares({}, {"a": roles, "b": roles, "c": roles}).allot(roles)
    assert sorted(list(allotted.values()).count(member) for member in "abc") == [3, 3, 3]


def test_nobody_waits_nobody_gets() -> None:
    assert shares({}, {"a": {"other"}}).allot({"r"}) == {}


def test_a_difference_of_one_moves_nothing() -> None:
    assert shares({"x": "a", "y": "a", "z": "b"}, {"a": {"z"}, "b": {"x", "y"}}).moves() == {}


def test_a_difference_of_two_moves_one() -> None:
    moves = shares({"x": "a", "y": "a"}, {"a": set(), "b": {"x", "y"}}).moves()
    assert list(moves.values()) == ["a"]
    assert set(moves) < {"x", "y"}


def test_what_was_promised_moves_first() -> None:
    held = {f"r{i}": "a" for i in range(6)}
    wants = {"a": set[str](), "b": set(held)}
    for role in held:
        assert role in shares(held, wants).moves({role})
        assert len(shares(held, wants).moves({role})) == 3


def test_only_what_is_waited_for_moves() -> None:
    held = {f"r{i}": "a" for i in range(6)}
    assert shares(held, {"a": set(), "b": {"r2"}, "c": set()}).moves() == {"r2": "a"}


def test_a_smaller_giver_gives_if_the_greatest_has_nothing_wanted() -> None:
    held = {**{f"own{i}": "a" for i in range(9)}, "r1": "b", "r2": "b"}
    moves = shares(held, {"a": set(), "b": set(), "c": {"r1", "r2"}}).moves()
    assert list(moves.values()) == ["b"]


def test_the_silent_neither_give_nor_take() -> None:
    full = table({"x": "dead", "y": "dead", "z": "dead"}, {"dead": {"q"}, "a": {"x", "y", "z"}})
    assert Shares.of(full, {"a"}).moves() == {}
    assert Shares.of(full, {"a"}).allot({"q"}) == {}


def test_any_start_comes_to_fair_shares() -> None:
    dice = random.Random(7)
    for _ in range(200):
        members = [f"m{i}" for i in range(dice.randrange(1, 6))]
        roles = [f"r{i}" for i in range(dice.randrange(12))]
        held = {role: dice.choice([*members, ""]) for role in roles}
        wants = {member: {role for role in roles if held[role] != member} for member in members}
        plan = shares(held, wants)
        plan.allot({role for role in roles if not held[role]})
        plan.moves()
        counts = [len(roles) for roles in plan.held.values()]
        assert sum(counts) == len(roles)
        assert max(counts) - min(counts) <= 1


def test_everybody_makes_the_same_plan() -> None:
    roles = [f"r{i}" for i in range(12)]
    held = dict.fromkeys(roles, "a")
    wants = {"a": set[str](), "b": set(roles), "c": set(roles)}
    backwards = {member: wants[member] for member in reversed(wants)}
    assert shares(held, wants).moves() == shares(dict(reversed(held.items())), backwards).moves()


# --- the watch -----------------------------------------------------------------------------------------------------


def test_a_held_role_opens_when_its_holder_was_silent_for_a_lease_time() -> None:
    watch = Watch()
    silent = table({"r": "a"}, {"a": set(), "b": {"r"}})
    watch.look(silent, 0.0)
    for _ in range(4):
        watch.look(silent, 0.2)
    assert watch.open_for("r") == pytest.approx(-0.2)
    assert watch.live() == {"a", "b"}
    watch.look(silent, 0.25)
    assert watch.open_for("r") == pytest.approx(0.05)
    assert watch.live() == set()


def test_a_beat_starts_the_count_anew() -> None:
    watch = Watch()
    for beat in range(9):
        watch.look(table({"r": "a"}, {"a": set()}, beat), 0.25)
    assert watch.open_for("r") == pytest.approx(-1.0)
    assert watch.live() == {"a"}


def test_time_between_looks_counts_only_so_far() -> None:
    watch = Watch()
    silent = table({"r": "a"}, {"a": set()})
    watch.look(silent, 0.0)
    watch.look(silent, 1e9)
    assert watch.open_for("r") == pytest.approx(LONGEST_LOOK - 1)


def test_a_free_role_is_open_from_when_it_was_seen_free() -> None:
    watch = Watch()
    wants = {"a": {"free", "new"}}
    watch.look(table({"free": "a"}, wants), 0.2)
    for _ in range(3):
        watch.look(table({"free": ""}, wants), 0.2)
    assert watch.open_for("free") == pytest.approx(0.4)
    assert watch.open_for("new") == pytest.approx(0.6)
    assert watch.open_for("unknown") == 0


def test_members_without_roles_are_forgotten_after_long() -> None:
    watch = Watch()
    silent = table({"r": "holder"}, {"holder": set(), "gone": {"r"}}, beat=3)
    for _ in range(17):
        watch.look(silent, 0.3)
    assert watch.forgotten() == {}
    for _ in range(2):
        watch.look(silent, 0.3)
    assert watch.forgotten() == {"gone": 3}
