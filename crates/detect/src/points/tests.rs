//! Points of whole scrapes: division into batches, order of arrival, phases, gaps, replicas.

use proptest::prelude::*;
use wardroom_domain::sample::STALE_NAN_BITS;
use wardroom_domain::{Entity, Labels};

use super::*;
use crate::Config;
use crate::point::{Point, RequestCounts};

/// A sample: index of the series, time in ms, value.
type Reading = (usize, i64, f64);

fn series_use(member: &str, kind: SignalKind, family: &str, part: Part) -> SeriesUse {
    SeriesUse {
        entity: Entity::service("cart"),
        peer: None,
        kind,
        resource: String::new(),
        family: family.into(),
        member: member.into(),
        part,
        scale: 1.0,
        offset: 0.0,
        is_delta: false,
        unit: SignalUnit::Number,
        direction: Direction::High,
    }
}

fn requests(member: &str, outcome: Outcome) -> SeriesUse {
    series_use(member, SignalKind::Traffic, "http_requests", Part::Requests(outcome))
}

fn gauge(member: &str) -> SeriesUse {
    series_use(member, SignalKind::Queue, "depth", Part::Value)
}

fn maker() -> PointMaker {
    PointMaker::new(&Config::default())
}

/// Feeds batches; returns all points, in an order that does not depend on indices.
fn points_of(maker: &mut PointMaker, series: &[PartHandle], batches: &[&[Reading]]) -> Vec<String> {
    let mut lines = Vec::new();
    for batch in batches {
        for (index, at_ms, value) in *batch {
            maker.observe(series[*index], *at_ms, *value);
        }
        lines.extend(maker.take_points().iter().map(|SignalPoint { group, slot, point }| {
            let id = maker.signal_id(*group, *slot).unwrap();
            let Point { at_ms, window_ms, value, requests, members, missing, .. } = point;
            let counts = requests.map(|RequestCounts { total, failed }| (total, failed));
            format!("{} {slot:?} {at_ms} {window_ms} {value:.6} {counts:?} {members} {missing}", id.metric)
        }));
    }
    lines.sort();
    lines
}

/// The same for series that are added to a new maker.
fn points(uses: &[SeriesUse], batches: &[&[Reading]]) -> Vec<String> {
    let mut maker = maker();
    let series: Vec<PartHandle> = uses
        .iter()
        .flat_map(|series_use| maker.add_series(std::slice::from_ref(series_use), &Labels::default()))
        .collect();
    points_of(&mut maker, &series, batches)
}

/// Points of one slot as (time in s, value, members, missing).
fn slot(uses: &[SeriesUse], readings: &[Reading], slot: SignalSlot) -> Vec<(i64, f64, u32, u32)> {
    let mut maker = maker();
    let series: Vec<PartHandle> = uses
        .iter()
        .flat_map(|series_use| maker.add_series(std::slice::from_ref(series_use), &Labels::default()))
        .collect();
    let mut found = Vec::new();
    for (index, at_ms, value) in readings {
        maker.observe(series[*index], *at_ms, *value);
        let points = maker.take_points();
        let of_slot = points.iter().filter(|point| point.slot == slot).map(|point| point.point);
        found.extend(of_slot.map(|point| (point.at_ms / 1000, point.value, point.members, point.missing)));
    }
    found
}

/// Readings of instances: (interval, phase) in s; each has a counter of good and one of failed requests, and a gauge.
/// `is_silent` says whether a scrape of an instance fails.
fn readings(
    instances: &[(i64, i64)],
    seconds: i64,
    is_silent: impl Fn(usize, i64) -> bool,
) -> (Vec<SeriesUse>, Vec<Reading>) {
    let (mut uses, mut all) = (Vec::new(), Vec::new());
    for (instance, (interval, phase)) in instances.iter().enumerate() {
        let name = format!("i{instance}");
        uses.extend([requests(&name, Outcome::Ok), requests(&name, Outcome::Failed), gauge(&name)]);
        for scrape in 0..(seconds - phase) / interval {
            let at_ms = (phase + scrape * interval) * 1000;
            if !is_silent(instance, scrape) {
                let good = (scrape * interval * 20) as f64;
                let values = [good, (scrape * (instance as i64 + 1)) as f64, (scrape % 7) as f64];
                all.extend(values.iter().zip(0..).map(|(value, index)| (instance * 3 + index, at_ms, *value)));
            }
        }
    }
    all.sort_by_key(|(_, at_ms, _)| *at_ms);
    (uses, all)
}

fn divided<'a>(readings: &'a [Reading], cuts: &[usize]) -> Vec<&'a [Reading]> {
    let (mut batches, mut rest) = (Vec::new(), readings);
    for cut in cuts.iter().cycle() {
        if rest.is_empty() || cuts.is_empty() {
            break;
        }
        let (batch, after) = rest.split_at((*cut).min(rest.len()));
        batches.push(batch);
        rest = after;
    }
    batches.push(rest);
    batches
}

/// Returns what only one side has: the first few lines.
fn differences(left: &[String], right: &[String]) -> Vec<String> {
    let only = |side: &str, lines: &[String], others: &[String]| -> Vec<String> {
        let own = lines.iter().filter(|line| !others.contains(line));
        own.map(|line| format!("{side} {line}")).take(6).collect()
    };
    [only("left ", left, right), only("right", right, left)].concat()
}

proptest! {
    /// Any division of the same samples into batches gives the same points: missed scrapes, restarts of the telemetry,
    /// stale markers, instances that begin and end, different intervals and phases.
    #[test]
    fn any_division_into_batches_gives_the_same_points(
        instances in prop::collection::vec((prop::sample::select(vec![1_i64, 5, 7, 15, 30, 60]), 0_i64..60), 1..5),
        silence in prop::collection::vec((0_usize..5, 0_i64..60, 0_i64..30), 0..6),
        outage in prop::option::of((0_i64..700, 0_i64..700)),
        markers in prop::collection::vec(0_usize..3000, 0..4),
        cuts in prop::collection::vec(1_usize..60, 1..20),
    ) {
        let is_silent = |instance: usize, scrape: i64| {
            silence.iter().any(|(of, from, count)| *of == instance && (*from..from + count).contains(&scrape))
        };
        let (uses, mut readings) = readings(&instances, 1200, is_silent);
        let is_out = |second: i64| outage.is_some_and(|(from, length)| (from..from + length).contains(&second));
        readings.retain(|(_, at_ms, _)| !is_out(at_ms / 1000));
        let count = readings.len().max(1);
        for marker in markers {
            if let Some((_, _, value)) = readings.get_mut(marker % count) {
                *value = f64::from_bits(STALE_NAN_BITS);
            }
        }
        let one_by_one = points(&uses, &divided(&readings, &[1]));
        let none: Vec<String> = Vec::new();
        prop_assert_eq!(differences(&points(&uses, &divided(&readings, &cuts)), &one_by_one), none.clone());
        prop_assert_eq!(differences(&points(&uses, &[&readings]), &one_by_one), none);
    }

    /// Shards and instances that arrive late by less than the grace, each series in its order, give the same points.
    #[test]
    fn any_order_of_arrival_within_the_grace_gives_the_same_points(
        instances in prop::collection::vec((prop::sample::select(vec![5_i64, 10, 15, 30, 60]), 0_i64..5), 1..4),
        delays in prop::collection::vec(0_i64..8000, 12),
        cuts in prop::collection::vec(1_usize..40, 1..9),
    ) {
        let (uses, readings) = readings(&instances, 900, |_, _| false);
        let mut late = readings.clone();
        late.sort_by_key(|(series, at_ms, _)| at_ms + delays[*series]);
        let in_order = points(&uses, &divided(&readings, &[1]));
        let shuffled = points(&uses, &divided(&late, &cuts));
        prop_assert_eq!(differences(&shuffled, &in_order), Vec::<String>::new());
    }

    /// Saving and loading in between changes nothing.
    #[test]
    fn a_loaded_maker_continues_like_the_saved_one(cut in 0_usize..400) {
        let (uses, readings) = readings(&[(15, 3), (30, 8)], 900, |_, _| false);
        let whole = points(&uses, &divided(&readings, &[1]));
        let mut first = maker();
        let mut series = Vec::new();
        for series_use in &uses {
            series.extend(first.add_series(std::slice::from_ref(series_use), &Labels::default()));
        }
        let (before, after) = readings.split_at(cut.min(readings.len()));
        let mut lines = points_of(&mut first, &series, &divided(before, &[1]));
        let bytes = postcard::to_allocvec(&first).unwrap();
        let mut second: PointMaker = postcard::from_bytes(&bytes).unwrap();
        second.restore(&Config::default());
        prop_assert_eq!(second.add_series(&uses[..1], &Labels::default())[0].0, series.len() as u32);
        lines.extend(points_of(&mut second, &series, &divided(after, &[1])));
        lines.sort();
        prop_assert_eq!(differences(&lines, &whole), Vec::<String>::new());
    }
}

#[test]
fn instances_with_other_phases_give_whole_points() {
    // Every 30 s, b 15 s after a; 300 requests each; b fails all from 10 min on.
    let uses = ["a", "b"].map(|name| [requests(name, Outcome::Ok), requests(name, Outcome::Failed)]).concat();
    let mut readings = Vec::new();
    let (mut b_good, mut b_bad) = (0.0, 0.0);
    for scrape in 0..40 {
        let at_ms = scrape * 30_000;
        readings.extend([(0, at_ms, scrape as f64 * 300.0), (1, at_ms, 0.0)]);
        readings.extend([(2, at_ms + 15_000, b_good), (3, at_ms + 15_000, b_bad)]);
        if scrape < 20 { b_good += 300.0 } else { b_bad += 300.0 }
    }
    let errors = slot(&uses, &readings, SignalSlot::Errors);
    let (healthy, bad): (Vec<(i64, f64, u32, u32)>, Vec<_>) = errors.into_iter().partition(|(at, ..)| *at < 620);
    assert!(healthy.len() >= 18 && healthy.iter().all(|(_, value, ..)| *value == 0.0), "{healthy:?}");
    assert!(bad.len() >= 17, "{bad:?}");
    assert!(bad[1..].iter().all(|(_, value, members, missing)| (*value, *members, *missing) == (0.5, 2, 0)), "{bad:?}");
    let traffic = slot(&uses, &readings, SignalSlot::Traffic);
    assert!(traffic[2..].iter().all(|(_, value, ..)| (*value - 20.0).abs() < 0.01), "{traffic:?}");
}

#[test]
fn a_point_needs_no_reading_of_the_next_scrape() {
    let uses = [requests("a", Outcome::Ok), requests("a", Outcome::Failed)];
    for interval in [1, 5, 7, 15, 30, 60] {
        for phase in 0..20 {
            // Any phase, and scrapes that are up to 4 ms early or late.
            let mut maker = maker();
            let series: Vec<PartHandle> = uses
                .iter()
                .flat_map(|series_use| maker.add_series(std::slice::from_ref(series_use), &Labels::default()))
                .collect();
            let mut late = 0;
            for scrape in 0..40 {
                let at_ms = scrape * interval * 1000 + interval * (phase * 50 + 20) + scrape % 5;
                series.iter().for_each(|part| maker.observe(*part, at_ms, scrape as f64 * 100.0));
                let points = maker.take_points();
                let errors = points.iter().rfind(|point| point.slot == SignalSlot::Errors);
                late +=
                    u32::from(scrape > 20 && interval >= 5 && errors.is_none_or(|errors| errors.point.at_ms != at_ms));
            }
            assert_eq!(late, 0, "every {interval} s, phase {phase}");
        }
    }
}

#[test]
fn an_instance_that_ends_is_missing_then_forgotten_and_a_marker_ends_it_at_once() {
    for with_marker in [false, true] {
        let uses = [gauge("a"), gauge("b")];
        let mut readings: Vec<Reading> = Vec::new();
        for scrape in 0..80 {
            let at_ms = scrape * 15_000 + 3_000;
            readings.push((0, at_ms, 1.0));
            if scrape < 20 {
                readings.push((1, at_ms, 5.0));
            } else if scrape == 20 && with_marker {
                readings.push((1, at_ms, f64::from_bits(STALE_NAN_BITS)));
            }
        }
        let values = slot(&uses, &readings, SignalSlot::Value);
        let after: Vec<_> = values.iter().filter(|(at, ..)| *at > 305).collect();
        assert!(values.iter().filter(|(at, ..)| *at < 290).all(|point| (point.1, point.2, point.3) == (5.0, 2, 0)));
        assert!(after.iter().all(|point| (point.1, point.2) == (1.0, 1)), "{after:?}");
        let missing = after.iter().filter(|point| point.3 > 0).count();
        assert!(if with_marker { missing == 0 } else { (18..=21).contains(&missing) }, "{missing}");
        assert!(after.len() >= 57, "no window waits indefinitely: {}", after.len());
    }
}

#[test]
fn replicas_of_a_sender_are_counted_once_and_a_switch_is_no_jump() {
    let labels = |replica: &str| Labels::of(&[("__name__", "http_requests_total"), ("prometheus_replica", replica)]);
    let mut maker = maker();
    let mut series = Vec::new();
    for replica in ["a", "b"] {
        for outcome in [Outcome::Ok, Outcome::Failed] {
            let mut labels: Vec<(String, String)> =
                labels(replica).iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            labels.push(("outcome".into(), format!("{outcome:?}")));
            series.extend(maker.add_series(&[requests("pod-1", outcome)], &Labels::new(labels)));
        }
    }
    let mut traffic = Vec::new();
    let mut errors = Vec::new();
    for scrape in 0..80_i64 {
        for (replica, offset) in [(0, 0), (1, 7_000)] {
            // Replica a ends after 30 scrapes; b reports from the tenth on, with old errors.
            if (replica == 0 && scrape >= 30) || (replica == 1 && scrape < 10) {
                continue;
            }
            let at_ms = scrape * 30_000 + offset;
            let total = 1_000_000.0 + at_ms as f64 / 100.0;
            maker.observe(series[replica * 2], at_ms, total);
            maker.observe(series[replica * 2 + 1], at_ms, 80_000.0);
            for point in maker.take_points() {
                match point.slot {
                    SignalSlot::Traffic => traffic.push((point.point.at_ms, point.point.value)),
                    SignalSlot::Errors => errors.push(point.point.value),
                    _ => {}
                }
            }
        }
    }
    assert!(traffic.len() >= 70, "{}", traffic.len());
    assert!(traffic.iter().all(|(_, rate)| (*rate - 10.0).abs() < 0.01), "{traffic:?}");
    assert!(!errors.is_empty() && errors.iter().all(|ratio| *ratio == 0.0), "{errors:?}");
}

#[test]
fn a_reading_from_the_future_moves_time_to_now_only() {
    let uses = [gauge("a"), gauge("b")];
    let mut maker = maker();
    let mut series = Vec::new();
    for series_use in &uses {
        series.extend(maker.add_series(std::slice::from_ref(series_use), &Labels::default()));
    }
    let mut points = Vec::new();
    for scrape in 0..40_i64 {
        let now_ms = scrape * 15_000;
        maker.begin_batch(now_ms);
        // The clock of b is four minutes ahead.
        maker.observe(series[0], now_ms, 1.0);
        maker.observe(series[1], now_ms + 240_000, 2.0);
        points.extend(
            maker.take_points().iter().map(|point| (point.point.at_ms, point.point.members, point.point.missing)),
        );
    }
    assert!(points.len() >= 18, "{points:?}");
    assert!(points.iter().skip(17).all(|(_, members, missing)| (*members, *missing) == (2, 0)), "{points:?}");
    assert!(points.iter().all(|(at_ms, ..)| *at_ms <= 40 * 15_000), "{points:?}");
}

#[test]
fn time_of_one_entity_does_not_move_another() {
    let mut maker = maker();
    let slow = maker.add_series(&[gauge("a")], &Labels::default())[0];
    let other = SeriesUse { entity: Entity::service("other"), ..gauge("a") };
    let fast = maker.add_series(&[other], &Labels::default())[0];
    let mut points = 0;
    for scrape in 0..20_i64 {
        maker.observe(slow, scrape * 15_000, 1.0);
        maker.observe(fast, scrape * 15_000 + 500_000, 1.0);
        let taken = maker.take_points();
        let cart = |point: &&SignalPoint| maker.signal_id(point.group, point.slot).unwrap().entity.name == "cart";
        points += taken.iter().filter(cart).count();
    }
    assert_eq!(points, 19);
}

#[test]
fn values_of_members_are_compared_per_member() {
    // 30 of 100 bytes and 90 of 1000: never 90 of 100, nor 90 of 1000 alone.
    let part = |member: &str, part: Part| SeriesUse {
        unit: SignalUnit::Bytes,
        ..series_use(member, SignalKind::Saturation, "memory", part)
    };
    let uses = [part("a", Part::Value), part("a", Part::Limit), part("b", Part::Value), part("b", Part::Limit)];
    let mut readings = Vec::new();
    for scrape in 0..10 {
        let at_ms = scrape * 15_000;
        readings.extend([(0, at_ms, 30.0), (1, at_ms, 100.0), (2, at_ms, 90.0), (3, at_ms, 1000.0)]);
    }
    let shares = slot(&uses, &readings, SignalSlot::Share);
    assert!(
        shares.len() >= 8 && shares.iter().all(|(_, value, members, _)| (*value, *members) == (0.3, 2)),
        "{shares:?}"
    );
    assert!(slot(&uses, &readings, SignalSlot::Value).is_empty());
}

#[test]
fn requests_one_by_one_are_counted_by_their_time() {
    let mut maker = maker();
    let stream = maker.stream(&Entity::service("cart"), None, "spans");
    assert_eq!(maker.stream(&Entity::service("cart"), None, "spans"), stream);
    let mut points = Vec::new();
    for second in 0..120_i64 {
        // Ten a second, every second one fails; they arrive five seconds late.
        for part in 0..10 {
            maker.observe_request(stream, second * 1000 + part * 100 - 5_000, 0.2, part % 2 == 0);
        }
        points.extend(maker.take_points());
    }
    let of =
        |slot: SignalSlot| points.iter().filter(|point| point.slot == slot).map(|point| point.point.value).collect();
    let (traffic, errors, latency): (Vec<f64>, Vec<f64>, Vec<f64>) =
        (of(SignalSlot::Traffic), of(SignalSlot::Errors), of(SignalSlot::Latency));
    assert!(traffic.len() >= 19 && traffic[1..].iter().all(|rate| *rate == 10.0), "{traffic:?}");
    assert!(errors.iter().all(|ratio| (*ratio - 0.5).abs() < 0.03), "{errors:?}");
    assert!(latency.len() >= 8 && latency.iter().all(|seconds| (0.15..=0.25).contains(seconds)), "{latency:?}");
    maker.remove_stream(stream);
    assert_eq!(maker.sizes(), (0, 0, 0));
}

#[test]
fn coming_and_going_leaves_nothing_behind() {
    let mut maker = maker();
    for round in 0..2000_i64 {
        let entity = Entity::service(format!("job-{round}"));
        let uses =
            [SeriesUse { entity: entity.clone(), ..requests("a", Outcome::Ok) }, SeriesUse { entity, ..gauge("a") }];
        let handles: Vec<PartHandle> = uses
            .iter()
            .flat_map(|series_use| maker.add_series(std::slice::from_ref(series_use), &Labels::default()))
            .collect();
        for scrape in 0..4 {
            handles.iter().for_each(|handle| maker.observe(*handle, round * 60_000 + scrape * 15_000, scrape as f64));
            maker.take_points();
        }
        maker.remove_series(&handles);
    }
    assert_eq!(maker.sizes(), (0, 0, 0));
    assert!(postcard::to_allocvec(&maker).unwrap().len() < 4096);
}

#[test]
fn the_scale_of_a_histogram_is_that_of_its_durations() {
    let milliseconds =
        |part: Part| SeriesUse { scale: 0.001, ..series_use("a", SignalKind::Traffic, "requests", part) };
    let uses = [milliseconds(Part::DurationSum(Outcome::Ok)), milliseconds(Part::DurationCount(Outcome::Ok))];
    let mut readings = Vec::new();
    for scrape in 0..20 {
        readings.extend([(0, scrape * 15_000, scrape as f64 * 15_000.0), (1, scrape * 15_000, scrape as f64 * 150.0)]);
    }
    let traffic = slot(&uses, &readings, SignalSlot::Traffic);
    let latency = slot(&uses, &readings, SignalSlot::Latency);
    assert!(traffic.len() > 15 && traffic.iter().all(|(_, value, ..)| *value == 10.0), "{traffic:?}");
    assert!(latency.len() > 15 && latency.iter().all(|(_, value, ..)| (*value - 0.1).abs() < 1e-9), "{latency:?}");
}

#[test]
fn two_exporters_of_one_limit_are_one_limit_and_both_uses_of_a_series_count() {
    let part = |part: Part| series_use("pod/web", SignalKind::Saturation, "container_cpu", part);
    let named = |name: &str| Labels::of(&[("__name__", name), ("prometheus_replica", "r-0"), ("cpu", "0")]);
    let mut maker = maker();
    // One series is the rate and, as one CPU, the limit; another exporter tells the limit again.
    let both = [part(Part::Rate), SeriesUse { scale: 0.0, offset: 1.0, ..part(Part::Limit) }];
    let used = maker.add_series(&both, &named("cpu_seconds_total"));
    let limit = maker.add_series(&[part(Part::Limit)], &named("resource_limits"));
    let mut shares = Vec::new();
    for scrape in 0..20_i64 {
        used.iter().for_each(|handle| maker.observe(*handle, scrape * 15_000, scrape as f64 * 15.0));
        maker.observe(limit[0], scrape * 15_000, 1.0);
        shares.extend(maker.take_points().iter().map(|point| (point.slot, point.point.value)));
    }
    assert!(shares.len() > 15 && shares.iter().all(|share| *share == (SignalSlot::Share, 1.0)), "{shares:?}");
}
