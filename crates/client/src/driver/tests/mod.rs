//! The driver, pools, whole objects and the load generator against OSDs over real connections.

mod fake;

use crate::bench::{self, BenchOptions, Work};
use crate::io::{Ack, Notice, ObjectIo, OpError, WatchHandler};
use crate::objects::{self, ObjectError};
use bytes::Bytes;
use cairn_types::{OsdMapIncremental, Timestamp};
use cairn_wire::op::{OBJECT_LEN_MAX, OpFlags, OpKind};
use cairn_wire::{ErrorCode, Payload};
use fake::{Cluster, pattern, run};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

#[test]
fn objects_are_put_read_listed_and_removed() {
    run(|| async {
        let cluster = Cluster::start(3).await;
        let pool = cluster.pool().await;
        for (name, len) in [("empty", 0), ("small", 5_000), ("piece", 4 << 20), ("large", 10_000_001)] {
            let data = pattern(len);
            objects::put(&pool, name, data.clone()).await.unwrap();
            assert_eq!(objects::stat(&pool, name).await.unwrap().size, len as u64);
            assert_eq!(objects::get(&pool, name).await.unwrap().concat(), data, "{name}");
        }
        objects::put(&pool, "large", pattern(10)).await.unwrap();
        assert_eq!(objects::get(&pool, "large").await.unwrap().concat(), pattern(10), "a rest is cut off");
        objects::rm(&pool, "small").await.unwrap();
        let error = objects::rm(&pool, "small").await.unwrap_err();
        assert_eq!(error.to_string(), "object 'small': no such object, image or entry (-2)");
        let mut names = BTreeSet::new();
        objects::ls(&pool, |object| names.insert(object.name)).await.unwrap();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["empty", "large", "piece"]);
        let len = OBJECT_LEN_MAX + 1;
        let error = objects::put(&pool, "x", vec![0; len as usize].into()).await.unwrap_err();
        assert_eq!(error, ObjectError::TooLarge { object: "x".to_owned(), len });
    });
}

#[test]
fn a_listing_by_pages_names_each_object_once() {
    run(|| async {
        let cluster = Cluster::start(2).await;
        let pool = cluster.pool().await;
        let mut expected = BTreeSet::new();
        for n in 0..100 {
            objects::put(&pool, &format!("o{n}"), pattern(1)).await.unwrap();
            expected.insert(format!("o{n}"));
        }
        for max in [0, 1, 3, 7, 99, 100, 101] {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = pool.list(after, max).await.unwrap();
                assert!(page.objects.len() <= max.max(1) as usize);
                found.extend(page.objects.into_iter().map(|object| object.name));
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
            assert_eq!(found.len(), 100, "{max} at a time");
            assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected, "{max} at a time");
        }
    });
}

#[test]
fn nothing_is_lost_with_connections() {
    run(|| async {
        let cluster = Cluster::start(3).await;
        cluster.osds.cut_after.store(37, Relaxed);
        let pool = cluster.pool().await;
        let mut tasks = JoinSet::new();
        for n in 0..32 {
            let pool = pool.clone();
            tasks.spawn(async move {
                for round in 0..12 {
                    let (name, data) = (format!("o{n}"), pattern(round * 3_000 + n));
                    objects::put(&pool, &name, data.clone()).await.unwrap();
                    assert_eq!(objects::get(&pool, &name).await.unwrap().concat(), data);
                }
            });
        }
        while let Some(task) = tasks.join_next().await {
            task.unwrap();
        }
        assert!(cluster.osds.frames.load(Relaxed) > 2 * 32 * 12);
    });
}

/// Tells what it hears, and answers with the same, reversed.
struct Heard(mpsc::UnboundedSender<String>);

impl WatchHandler for Heard {
    fn notified(&self, notice: Notice, ack: Ack) {
        let _ = self.0.send(format!("{:?}", notice.payload));
        ack.reply(notice.payload.iter().rev().copied().collect());
    }

    fn renewed(&self) {
        let _ = self.0.send("renewed".to_owned());
    }

    fn ended(&self, why: OpError) {
        let _ = self.0.send(why.to_string());
    }
}

#[test]
fn a_watch_hears_notifications_also_over_a_new_connection() {
    run(|| async {
        let cluster = Cluster::start(1).await;
        let pool = cluster.pool().await;
        objects::put(&pool, "w", pattern(1)).await.unwrap();
        let (tell, mut heard) = mpsc::unbounded_channel();
        let watch = pool.watch("w", Arc::new(Heard(tell))).await.unwrap();
        let notified = pool.notify("w", Bytes::from_static(b"abc"), Duration::from_secs(5)).await.unwrap();
        assert_eq!(heard.recv().await.unwrap(), "b\"abc\"");
        assert_eq!(notified.acknowledged.len(), 1);
        let first = &notified.acknowledged[0];
        assert_eq!((first.cookie, &first.reply[..]), (watch.cookie, &b"cba"[..]));
        // The next frame cuts the connection.
        let frames = cluster.osds.frames.load(Relaxed);
        cluster.osds.cut_after.store(frames + 1, Relaxed);
        objects::stat(&pool, "w").await.unwrap();
        assert_eq!(heard.recv().await.unwrap(), "renewed");
        pool.notify("w", Bytes::from_static(b"xy"), Duration::from_secs(5)).await.unwrap();
        assert_eq!(heard.recv().await.unwrap(), "b\"xy\"");
        pool.unwatch(&watch).await.unwrap();
        assert!(heard.recv().await.is_none(), "its handler is gone");
    });
}

#[test]
fn the_blocklist_fails_what_waits_and_what_comes() {
    run(|| async {
        let cluster = Cluster::start(1).await;
        let pool = cluster.pool().await;
        objects::put(&pool, "w", pattern(1)).await.unwrap();
        let (tell, mut heard) = mpsc::unbounded_channel();
        let _watch = pool.watch("w", Arc::new(Heard(tell))).await.unwrap();
        let map = &cluster.map;
        let mut change = OsdMapIncremental::empty(map.epoch.next(), map.fsid, Timestamp(1));
        change.blocklist.insert(pool.addr(), Some(Timestamp(9)));
        let batch =
            cairn_mon::service::subscription::MapBatch { increments: vec![change], ..Default::default() };
        cluster.maps.send(batch).await.unwrap();
        assert!(heard.recv().await.unwrap().contains("is in the blocklist"));
        let error = objects::stat(&pool, "w").await.unwrap_err();
        assert_eq!(error, OpError::Blocklisted { addr: pool.addr() }.into());
    });
}

#[test]
fn a_time_out_ends_a_vector_that_nobody_serves() {
    run(|| async {
        let cluster = Cluster::start(1).await;
        let map = &cluster.map;
        let mut change = OsdMapIncremental::empty(map.epoch.next(), map.fsid, Timestamp(1));
        for (&osd, info) in &map.osds {
            let mut info = *info;
            info.up = false;
            change.osds.insert(osd, info);
        }
        let batch =
            cairn_mon::service::subscription::MapBatch { increments: vec![change], ..Default::default() };
        cluster.maps.send(batch).await.unwrap();
        let pool = cluster.pool().await;
        while cluster.client.map().unwrap().up_count() > 0 {
            tokio::task::yield_now().await;
        }
        let hasty = pool.with_timeout(Duration::from_millis(20));
        let error = objects::stat(&hasty, "w").await.unwrap_err();
        assert_eq!(error, OpError::TimedOut { object: "w".to_owned(), after_ms: 20 }.into());
    });
}

#[test]
fn a_vector_that_breaks_a_bound_is_not_sent() {
    run(|| async {
        let cluster = Cluster::start(1).await;
        let pool = cluster.pool().await;
        let ops = vec![OpKind::Write { offset: 0, len: 5 }.into()];
        let data = Payload::of(0, Bytes::from_static(b"four"));
        let error = pool.operate("w", ops, data, OpFlags::default()).await.unwrap_err();
        assert_eq!(error.to_string(), "object 'w': the data does not match the operations");
        let error = objects::stat(&pool, "w").await.unwrap_err();
        assert!(matches!(error, ObjectError::Op(error) if error.code() == Some(ErrorCode::NOENT)));
        assert_eq!(cluster.osds.frames.load(Relaxed), 1);
    });
}

#[test]
fn a_benchmark_counts_what_it_does() {
    run(|| async {
        let cluster = Cluster::start(2).await;
        let pool = cluster.pool().await;
        let mut options = BenchOptions {
            work: Work::RandomRead,
            block_len: 4_096,
            object_len: 65_536,
            objects: 4,
            depth: 8,
            duration: Duration::from_secs(50),
            ops_max: Some(64),
            prefix: "bench_".to_owned(),
            seed: 3,
        };
        let progress = Arc::new(bench::Progress::default());
        let error = bench::run(&pool, &options, progress.clone()).await.unwrap_err();
        assert!(matches!(error, bench::BenchError::NothingThere { .. }), "{error}");
        for work in [Work::Write, Work::Read, Work::RandomRead, Work::RandomWrite] {
            options.work = work;
            let progress = Arc::new(bench::Progress::default());
            let result = bench::run(&pool, &options, progress.clone()).await.unwrap();
            assert_eq!((result.ops, result.bytes), (64, 64 * 4_096));
            assert_eq!((progress.ops.load(Relaxed), progress.bytes.load(Relaxed)), (64, 64 * 4_096));
            let latency = result.latency;
            assert!(
                latency.min_us > 0 && latency.min_us <= latency.p50_us && latency.p50_us <= latency.max_us
            );
        }
        assert_eq!(objects::stat(&pool, "bench_000000000003").await.unwrap().size, 65_536);
        bench::clean_up(&pool, &options).await.unwrap();
        bench::clean_up(&pool, &options).await.unwrap();
        assert_eq!(pool.list(None, 10).await.unwrap().objects, []);
    });
}
