"""Charts and small lines: what was not measured is not drawn, and what happened stands at its time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schemas.signals import SIGNALS
from schemas.tables import Report, SignalVerdict
from streams.gateway.charts import MOST_MARKS, PLANS, draw_charts, draw_marks, spark, with_gaps
from streams.gateway.overview import Alarm
from streams.history import Point, Stretch


def point(at: float, mean: float = 1.0) -> Point:
    return Point(at, mean, mean / 2, mean * 2, 1.0)


def stretch(**points: list[Point]) -> Stretch:
    return Stretch(60, {name.replace("_at_", "@"): each for name, each in points.items()})


def report(at: float, status: str = "alarm", signal: str = "recall@10") -> Report:
    return Report(
        report_id=f"r-{at}", scenario="shop", signal=signal, status=status, severity="page", value=0.1, reference=0.3,
        threshold=0.1, window=400, detected_at=at, action="", reason="It fell.",
    )  # fmt: skip


def test_every_signal_stands_in_exactly_one_chart() -> None:
    drawn = [name for plan in PLANS for name in plan.read]
    assert sorted(drawn) == sorted(SIGNALS)


def test_signals_of_one_chart_have_one_unit_but_where_both_are_counted() -> None:
    units = {plan.name: {SIGNALS[name].unit for name in plan.read} for plan in PLANS}
    assert {name for name, each in units.items() if len(each) > 1} <= {"lag", "throughput"}


def test_points_far_apart_are_not_joined() -> None:
    assert [each for _, each in with_gaps([point(0), point(60), point(300)], 60)] == [
        point(0),
        point(60),
        None,
        point(300),
    ]


def test_an_empty_chart_says_why_and_an_empty_past_is_not_an_empty_stretch() -> None:
    never = draw_charts(stretch(), [], [], {}, 0, 3600, ever=False).charts[0]
    not_now = draw_charts(stretch(), [], [], {}, 0, 3600, ever=True).charts[0]
    assert "yet" in never.empty and "not a zero" in not_now.empty
    assert never.lines == not_now.lines == []


def test_an_open_alarm_is_red_in_the_chart_of_its_signal_alone() -> None:
    alarm = Alarm(
        signal="recall@10", title="", severity="page", since=120.0, value=0.1, reference=0.3, action="", why="",
        what_to_do="",
    )  # fmt: skip
    charts = draw_charts(stretch(recall_at_10=[point(0)]), [], [alarm], {}, 0, 3600, ever=True).charts
    red = {each.name: [(one.since, one.reference) for one in each.red] for each in charts if each.red}
    assert red == {"recall": [(120.0, 0.3)]}


def test_a_chart_says_how_its_signals_are_judged_and_where_an_alarm_would_begin() -> None:
    def verdict(signal: str, state: str, low: float | None = None) -> SignalVerdict:
        return SignalVerdict(scenario="shop", signal=signal, state=state, reason="at 0.3", low=low, high=None)

    verdicts = {
        "recall@10": verdict("recall@10", "steady", low=0.25),
        "recall@10_popular": verdict("recall@10_popular", "none"),
        "ndcg@10": verdict("ndcg@10", "alarm", low=0.2),
    }
    charts = {each.name: each for each in draw_charts(stretch(), [], [], verdicts, 0, 3600, ever=True).charts}
    assert [each.says for each in charts["recall"].judged] == [
        "Recall@10: no alarm, at 0.3; below 25.0 % it would be one.",
        "Recall@10 of what is popular: no verdict, at 0.3.",
    ]
    assert charts["recall"].judged[0].low == 0.25
    assert [each.says for each in charts["ndcg"].judged] == ["NDCG@10: an alarm is open, at 0.3."]
    assert charts["coverage"].judged == []


def test_marks_are_numbered_in_the_order_of_time_and_of_many_the_newest_stay() -> None:
    reports = [report(float(at)) for at in range(100, 0, -1)]
    marks = draw_charts(stretch(), reports, [], {}, 0, 3600, ever=True).marks
    assert [each.number for each in marks] == list(range(1, MOST_MARKS + 1))
    assert (marks[0].at, marks[-1].at) == (61.0, 100.0)


def test_a_mark_is_named_by_what_happened_and_to_which_signal() -> None:
    marks = draw_marks([report(2, "rolled_back"), report(1, "alarm")])
    assert [each.title for each in marks] == ["Alarm: Recall@10", "Rolled back"]


@given(
    st.lists(st.floats(0, 1e12, allow_nan=False), min_size=1, max_size=60),
    st.floats(1e-3, 1e12, allow_nan=False),
)
def test_a_small_line_stays_in_its_box(means: list[float], top: float) -> None:
    points = [point(60.0 * place, mean) for place, mean in enumerate(means)]
    path = spark(points, 60, 0, 60.0 * len(points), max(top, *means))
    numbers = [float(each) for each in path.replace("M", " ").replace("L", " ").replace("h.1", "").split()]
    assert all(0 <= x <= 100 for x in numbers[::2])
    assert all(0 <= y <= 30 for y in numbers[1::2])


def test_a_small_line_of_nothing_is_nothing_and_of_zeros_lies_on_the_ground() -> None:
    assert spark([], 60, 0, 60) == ""
    assert spark([point(0, 0.0), point(60, 0.0)], 60, 0, 120) == "M25.0 28.5L75.0 28.5"
