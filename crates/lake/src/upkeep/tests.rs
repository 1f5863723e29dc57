use std::collections::BTreeSet;

use proptest::prelude::*;
use wardroom_domain::TenantId;

use super::*;
use crate::Config;
use crate::lake::tests::{count, events, flush, new, of, rows, stray};
use crate::spec::{DEPLOYMENTS, LOG_TEMPLATES, LOGS};

#[tokio::test]
async fn short_files_of_a_day_are_joined() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    let now = Timestamp::from_millis(1_795_255_040_000);
    for batch in 0..20_u64 {
        let mut fresh = events(lake.events_reached().await.unwrap(), batch * 3..batch * 3 + 3);
        lake.land(&fresh.finish(batch * 3 + 3, now).unwrap()).await.unwrap();
        lake.flush(flush(batch + 1, 0), &[new(batch as i64)], now).await.unwrap();
    }
    let done = lake.maintain(None).await.unwrap();
    assert_eq!((done.files_in, done.files_out), (4 * compact::MANY, 4));
    for table in [of(&lake, &LOGS), of(&lake, &DEPLOYMENTS)] {
        assert_eq!(count(table).await, (5, 60));
    }
    let (highest, known) = lake.series(None).await.unwrap().remove(&TenantId::main()).unwrap();
    assert_eq!((highest, known.len()), (19, 20));
    assert_eq!(lake.requests(1000, 0).await.unwrap()[&TenantId::main()].len(), 60);
    assert_eq!(lake.maintain(None).await.unwrap(), Merged::default(), "once is enough");
}

/// delta-rs would commit both: neither says that it changes data.
#[tokio::test]
async fn of_two_who_merge_the_same_files_one_is_too_late() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::default();
    let lake = Lake::open(&config, dir.path()).await.unwrap();
    for batch in 1..=3 {
        lake.flush(flush(batch, batch as i64 * 200_000), &[], later(0)).await.unwrap();
    }
    let other = Lake::open(&config, dir.path()).await.unwrap();
    let (files, seen) = (lake.files().await.unwrap(), other.files().await.unwrap());
    lake.merge(&files).await.unwrap();
    let late = other.merge(&seen[..2]).await;
    assert!(late.as_ref().is_err_and(|error| error.to_string().contains("somebody else merged")), "{late:?}");
    let again = other.merge(&files).await;
    assert!(matches!(again, Err(Error::Unavailable(_))), "what it knows now does not help: {again:?}");
    let live = lake.files().await.unwrap();
    assert_eq!((live.len(), rows(&lake).await, rows(&other).await), (1, 90, 90));
    let table = dir.path().join("lake/silver/samples").join(&live[0].path);
    let kept = std::fs::read_dir(table.parent().unwrap()).unwrap().count();
    assert_eq!(kept, 4, "nobody's file stays: three that were merged and what became of them");
}

#[tokio::test]
async fn rows_are_kept_as_long_as_the_first_rule_that_fits_says() {
    let dir = tempfile::tempdir().unwrap();
    let rule = |table: &str, tenant: Option<&str>, days| Retention {
        table: table.into(),
        tenant: tenant.map(|tenant| TenantId::new(tenant).unwrap()),
        days,
    };
    let retention =
        vec![rule("silver.logs", Some("main"), 2), rule("silver.log*", None, 0), rule("silver.samples", None, 5)];
    let lake = Lake::open(&Config { retention, ..Config::default() }, dir.path()).await.unwrap();
    // Line and templates stand on the day of the first offset; a batch a day.
    let (day_ms, start_ms) = (86_400_000, 1_795_255_038_000);
    let at = |day: i64| Timestamp::from_millis(start_ms + day * day_ms);
    for day in 0..8 {
        let offset = (day as u64 + 1) * day_ms as u64;
        let mut fresh =
            events(lake.events_reached().await.unwrap(), offset - day_ms as u64..offset - day_ms as u64 + 1);
        lake.land(&fresh.finish(offset, at(day)).unwrap()).await.unwrap();
        lake.flush(flush(offset, start_ms + day * day_ms), &[], at(day)).await.unwrap();
    }
    let holdings = lake.holdings(&TenantId::main(), at(7)).await.unwrap();
    let outdated = holdings.iter().filter(|holding| holding.outdated > 0);
    let outdated: Vec<_> = outdated.map(|holding| (holding.table, holding.rows, holding.outdated)).collect();
    assert_eq!(outdated, [("silver.samples", 240, 60), ("silver.logs", 8, 5), ("silver.log_templates", 8, 7)]);
    assert_eq!(count(of(&lake, &LOGS)).await.1, 8, "asking removes nothing");
    let expired = async || {
        let mut rows = 0;
        for chore in lake.chores(Some(Sweep::weekly(at(7)))).await.unwrap() {
            assert_eq!(chore.deed.as_str(), "expire");
            rows += chore.rows;
            lake.carry_out(&chore).await.unwrap();
        }
        rows
    };
    assert_eq!(expired().await, 60 + 5 + 7);
    let left = [&lake.samples, of(&lake, &LOGS), of(&lake, &LOG_TEMPLATES), of(&lake, &DEPLOYMENTS)];
    let mut counts = Vec::new();
    for table in left {
        counts.push(count(table).await.1);
    }
    assert_eq!(counts, [180, 3, 1, 8]);
    assert_eq!(expired().await, 0, "once is enough");
    let reached = lake.reached().await.unwrap();
    assert_eq!(reached, Some(8 * day_ms as u64), "what was written stays known as written");
}

/// So many days from now.
fn later(days: u64) -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "files have the system's times")]
    let age = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(age.as_millis() as i64).plus(Duration::from_secs(days * 86_400))
}

#[tokio::test]
async fn merged_files_are_swept_after_a_week_and_no_row_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    let hour = 3_600_000;
    for offset in 1..=8 {
        lake.flush(flush(offset, offset as i64 * hour), &[], Timestamp::from_millis(0)).await.unwrap();
    }
    let before: Vec<_> = lake.files().await.unwrap().into_iter().map(|file| file.path).collect();
    let merged = lake.maintain(None).await.unwrap();
    assert_eq!((merged.files_in, merged.files_out, merged.rows), (8, 1, 240));
    assert_eq!(lake.maintain(None).await.unwrap(), Merged::default(), "once is enough");
    assert_eq!((rows(&lake).await, lake.reached().await.unwrap()), (240, Some(8)));
    let there = |path: &&String| dir.path().join("lake/silver/samples").join(path).exists();
    let sweep = async |days| lake.samples.lock().await.sweep(Sweep::weekly(later(days)), false).await.unwrap();
    assert_eq!((sweep(6).await, before.iter().filter(there).count()), (0, 8));
    assert_eq!((sweep(8).await, before.iter().filter(there).count()), (8, 0));
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    let file = lake.files().await.unwrap().remove(0);
    assert_eq!((lake.rows(&file).await.unwrap().len(), lake.reached().await.unwrap()), (240, Some(8)));
}

#[test]
fn less_than_a_day_is_swept_by_force_only() {
    let (now, hour) = (Timestamp::from_millis(0), Duration::from_secs(3600));
    let refused = Sweep::after(now, hour * 23, false).unwrap_err().to_string();
    assert!(refused.contains("--force"), "{refused}");
    assert!(Sweep::after(now, hour * 24, false).is_ok() && Sweep::after(now, hour * 23, true).is_ok());
}

/// What happens to a table.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// A batch, so many hours after the one before.
    Flush(i64),
    /// A file is written, and its commit never comes.
    Stray,
    Maintain,
    /// So many days later, with so many days' worth of old versions kept.
    Sweep(u64, u64),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        4 => (1_i64..10).prop_map(Deed::Flush),
        1 => Just(Deed::Stray),
        2 => Just(Deed::Maintain),
        2 => (0_u64..20, 1_u64..9).prop_map(|(days, keep)| Deed::Sweep(days, keep)),
    ];
    proptest::collection::vec(deed, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Bar 5c: whatever is done in whatever order, no file goes that the newest version names, that was replaced less long ago
    /// than what is kept, or that is younger and was never named; older ones that no version names do not stay.
    #[test]
    fn no_file_goes_that_somebody_may_need(deeds in deeds()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
            let folder = dir.path().join("lake/silver/samples");
            let (mut hour, mut offset, mut written) = (0, 0, 0);
            let (mut strays, mut named) = (Vec::new(), BTreeSet::new());
            for deed in deeds {
                match deed {
                    Deed::Flush(hours) => {
                        (hour, offset, written) = (hour + hours, offset + 1, written + 30);
                        lake.flush(flush(offset, hour * 3_600_000), &[], Timestamp::from_millis(0)).await.unwrap();
                    }
                    Deed::Stray => {
                        let file = stray(offset + 1000, hour * 3_600_000);
                        let add = lake.samples.lock().await.put(&file, offset + 1000).await.unwrap();
                        strays.push(add.path);
                    }
                    Deed::Maintain => drop(lake.maintain(None).await.unwrap()),
                    Deed::Sweep(days, keep) => {
                        let keep_for = Duration::from_secs(keep * 86_400);
                        let sweep = Sweep::after(later(days), keep_for, false).unwrap();
                        lake.samples.lock().await.sweep(sweep, false).await.unwrap();
                        let live: BTreeSet<_> = lake.files().await.unwrap().into_iter().map(|file| file.path).collect();
                        // All that was replaced was replaced today.
                        let may_go = |path: &String| !live.contains(path) && days >= keep;
                        named.retain(|path| !may_go(path));
                        let left: Vec<_> = strays.iter().filter(|path| folder.join(path).exists()).collect();
                        assert!(days <= keep || left.is_empty(), "{left:?} were left behind by tries that failed");
                        strays.retain(|_| days < keep);
                    }
                }
                named.extend(lake.files().await.unwrap().into_iter().map(|file| file.path));
                for path in named.iter().chain(&strays) {
                    assert!(folder.join(path).exists(), "{path} is gone after {deed:?}");
                }
            }
            assert_eq!(rows(&lake).await, written, "every row is there");
        });
    }
}
