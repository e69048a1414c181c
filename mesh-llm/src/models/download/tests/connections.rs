//! Connections that break, hang or are refused, and files that change.

use super::super::hub::{self, Fault};
use super::super::*;
use super::{Bench, FILE, LENGTH, REPO, until};
use std::time::{Duration, Instant};

#[tokio::test]
async fn without_ranges_it_comes_over_one_connection_and_survives_cuts() {
    for no_etag in [false, true] {
        let bench = Bench::new();
        bench.hub.behave(|behaviour| {
            behaviour.ignores_ranges = true;
            behaviour.no_etag = no_etag;
            // One for the question, two for what follows.
            behaviour
                .faults
                .extend([Fault::Cut(0), Fault::Cut(5 << 20), Fault::Cut(7 << 20)]);
        });
        bench
            .succeed(&Source::Url(bench.hub.add_plain("m", bench.bytes.clone())))
            .await;
        assert!(bench.hub.log().iter().all(|logged| logged.status == 200));
    }
}

#[tokio::test]
async fn cut_connections_continue_where_they_stopped() {
    let bench = Bench::new();
    // As long as each brings something, there is no limit to how often.
    bench
        .hub
        .behave(|behaviour| behaviour.always = Some(Fault::Cut(300_000)));
    bench.succeed(&bench.source()).await;
    assert!(bench.hub.log().len() > LENGTH / 300_000);
    let again = bench.hub.sent_bytes() as f64 / LENGTH as f64;
    assert!(again < 1.3, "{again:.2} times the file was sent");
}

#[tokio::test]
async fn connections_that_bring_nothing_are_an_error_in_the_end_and_what_came_stays() {
    let mut bench = Bench::new();
    bench.patience.retries = 1;
    bench.hub.behave(|behaviour| behaviour.allowance = Some(6 << 20));
    let error = bench.fail(&bench.source()).await;
    let Error::Broken { cause, .. } = &error else {
        panic!("{error}")
    };
    assert!(cause.contains("nothing came for"), "{error}");
    let durable = bench.durable();
    assert_eq!(
        durable,
        (6 << 20) - 1,
        "all but the first byte, which was asked for alone"
    );
    bench.hub.clear_log();
    bench.hub.behave(|behaviour| behaviour.allowance = None);
    bench.succeed(&bench.source()).await;
    assert_eq!(bench.hub.sent_bytes(), LENGTH as u64 - durable + 1);
}

#[tokio::test]
async fn a_dead_connection_is_noticed_and_a_slow_one_kept() {
    let bench = Bench::new();
    bench
        .hub
        .behave(|behaviour| behaviour.faults.push_back(Fault::Stall(100_000)));
    let start = Instant::now();
    bench.succeed(&bench.source()).await;
    assert!(start.elapsed() >= bench.patience.read, "it was not waited for");

    let mut bench = Bench::new();
    bench.bytes = hub::bytes(300_000);
    bench.hub.add(REPO, FILE, bench.bytes.clone());
    // Longer in all than a connection may be silent.
    bench.patience.read = Duration::from_secs(2);
    bench
        .hub
        .behave(|behaviour| behaviour.bytes_per_second = Some(100_000));
    bench.succeed(&bench.source()).await;
    assert_eq!(bench.hub.log().len(), 3, "{:?}", bench.hub.log());
}

#[tokio::test]
async fn a_busy_server_is_given_the_time_that_it_wants() {
    let bench = Bench::new();
    bench.hub.behave(|behaviour| {
        behaviour.hub_faults.push_back(Fault::Status(429, Some("1")));
        behaviour
            .faults
            .extend([Fault::Status(503, None), Fault::Status(503, None)]);
    });
    let start = Instant::now();
    bench.succeed(&bench.source()).await;
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_server_that_wants_too_much_time_is_named() {
    let bench = Bench::new();
    bench
        .hub
        .behave(|behaviour| behaviour.hub_faults.push_back(Fault::Status(429, Some("4000"))));
    let error = bench.fail(&bench.source()).await.to_string();
    assert!(
        error.contains("status 429") && error.contains("in 4000 seconds"),
        "{error}"
    );
}

#[tokio::test]
async fn an_address_that_expired_is_asked_for_again() {
    let bench = Bench::new();
    bench.hub.behave(|behaviour| {
        behaviour.bytes_per_second = Some(4 << 20);
        behaviour.always = Some(Fault::Cut(1 << 20));
    });
    let source = bench.source();
    let expire = async {
        bench.sent(1 << 20).await;
        bench.hub.behave(|behaviour| behaviour.generation += 1);
    };
    tokio::join!(bench.succeed(&source), expire);
    assert!(bench.hub.log().iter().any(|logged| logged.status == 403));
}

#[tokio::test]
async fn a_file_that_changes_in_the_middle_starts_over() {
    for no_etag in [false, true] {
        let mut bench = Bench::new();
        bench.hub.behave(|behaviour| {
            behaviour.no_etag = no_etag;
            behaviour.bytes_per_second = Some(4 << 20);
            behaviour.always = Some(Fault::Cut(2 << 20));
        });
        let source = Source::Url(bench.hub.add_plain("m", hub::bytes(LENGTH + 1)));
        let mut changed = bench.bytes.to_vec();
        changed.reverse();
        bench.bytes = changed.into();
        let change = async {
            bench.sent(1 << 20).await;
            bench.hub.add_plain("m", bench.bytes.clone());
        };
        tokio::join!(bench.succeed(&source), change);
    }
}

#[tokio::test]
async fn another_file_in_its_place_is_not_mixed_with_what_was_left() {
    let mut bench = Bench::new();
    bench.patience.retries = 0;
    bench.hub.behave(|behaviour| behaviour.allowance = Some(6 << 20));
    bench.fail(&bench.source()).await;
    assert!(bench.durable() > 0);
    bench.hub.behave(|behaviour| behaviour.allowance = None);
    let mut changed = bench.bytes.to_vec();
    changed.reverse();
    bench.bytes = changed.into();
    bench.hub.add(REPO, FILE, bench.bytes.clone());
    bench.succeed(&bench.source()).await;
}

#[tokio::test]
async fn a_download_that_is_dropped_is_continued() {
    let bench = Bench::new();
    bench
        .hub
        .behave(|behaviour| behaviour.bytes_per_second = Some(1 << 20));
    let source = bench.source();
    let enough = until(|| bench.durable() > 1 << 20);
    tokio::select! {
        result = bench.fetch(&source) => panic!("it was not dropped: {result:?}"),
        () = enough => {}
    }
    let durable = bench.durable();
    assert!(durable > 1 << 20, "{durable}");
    bench.hub.clear_log();
    bench.hub.behave(|behaviour| behaviour.bytes_per_second = None);
    bench.succeed(&bench.source()).await;
    assert!(bench.hub.sent_bytes() <= LENGTH as u64 - durable + 1);
}

#[tokio::test]
async fn two_downloads_of_one_file_are_one() {
    let bench = Bench::new();
    bench
        .hub
        .behave(|behaviour| behaviour.bytes_per_second = Some(4 << 20));
    let source = bench.source();
    let (progress, mut seen) = watch::channel(Progress::default());
    let second = async {
        bench.sent(1 << 16).await;
        let folder = bench.folder.path();
        fetch_with(&bench.settings, bench.patience, &source, folder, FILE, &progress)
            .await
            .unwrap();
    };
    let watched = async {
        while seen.changed().await.is_ok() {
            if seen.borrow().phase == Phase::Waiting {
                return true;
            }
        }
        false
    };
    let ((), (), waited) = tokio::join!(bench.succeed(&source), second, watched);
    assert!(waited);
    assert_eq!(bench.hub.sent_bytes(), LENGTH as u64 + 1);
    assert_eq!(bench.names(), [FILE]);
}

#[tokio::test]
async fn without_a_network_one_line_says_so() {
    let mut bench = Bench::new();
    // A port for the system's own, where nobody listens.
    let free = "127.0.0.1:1";
    bench.settings.endpoint = format!("http://{free}");
    let error = bench.fail(&bench.source()).await;
    assert!(matches!(error, Error::NoConnection { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains(free) && text.contains("refused") && !text.contains('\n'),
        "{text}"
    );
    bench.settings.offline = true;
    let text = bench.fail(&bench.source()).await.to_string();
    assert!(text.contains("HF_HUB_OFFLINE"), "{text}");
    assert!(bench.names().is_empty());
}
