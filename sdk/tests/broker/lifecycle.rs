//! Configurations, writes, lost brokers and crashes.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bus::twin::{Json, Outcome, ReportBody, ReportMany, WriteRequest};
use kubebus_sdk::{Quality, UnixMillis, Value};
use tokio::time::sleep;

use crate::bench::bench;
use crate::support::{Node, Running, config, eventually, unix_now, world, write};

fn position(report: &ReportMany) -> (f64, Quality) {
    let Some(ReportBody::Full { value: Value::Float(value), quality, .. }) = report.get("position") else {
        panic!("{report:?}")
    };
    (*value, *quality)
}

#[tokio::test]
async fn a_configured_device_is_read_and_reported_until_it_is_gone() {
    let (_broker, mut node, running) = world().await;
    node.configure(&[config("read")]).await;
    for _ in 0..3 {
        assert_eq!(position(&node.report("read").await), (0.0, Quality::Good));
    }
    node.configure(&[]).await;
    eventually(|| bench("read").closed.load(SeqCst) != 0).await;
    running.stop().await;
    assert_eq!(node.state().await, "offline");
    assert_eq!(bench("read").written.load(SeqCst), 0);
}

#[tokio::test]
async fn a_device_that_does_not_open_is_tried_again_and_disturbs_nobody() {
    let (_broker, mut node, _running) = world().await;
    bench("dead").refuse_to_open.store(true, SeqCst);
    node.configure(&[config("dead"), config("alive")]).await;
    node.report("alive").await;
    eventually(|| bench("dead").opened.load(SeqCst) >= 3).await;
    node.report("alive").await;
    node.write(&write("w", "dead", 5000)).await;
    assert_eq!(node.result().await.outcome, Outcome::Failed);
    bench("dead").refuse_to_open.store(false, SeqCst);
    node.report("dead").await;
    assert_eq!((bench("alive").opened.load(SeqCst), bench("dead").offered.load(SeqCst)), (1, 0));
}

#[tokio::test]
async fn a_write_moves_the_device_and_is_reported() {
    let (_broker, mut node, _running) = world().await;
    node.configure(&[config("moved")]).await;
    node.report("moved").await;
    node.write(&write("w", "moved", 5000)).await;
    let result = node.result().await;
    assert_eq!((result.id.as_str(), result.outcome), ("w", Outcome::Succeeded));
    node.report_of("moved", |report| position(report).0 == 40.0).await;
}

#[tokio::test]
async fn an_expired_write_is_never_given_to_the_driver() {
    let (_broker, mut node, _running) = world().await;
    node.configure(&[config("late")]).await;
    node.report("late").await;
    let old = WriteRequest { sent: UnixMillis(unix_now().0 - 6000), ..write("old", "late", 5000) };
    node.write(&old).await;
    assert_eq!(node.result().await.outcome, Outcome::Expired);

    // In good time, but its turn comes only after a slow reading.
    bench("late").wait_in_read.store(1000, SeqCst);
    sleep(Duration::from_millis(300)).await;
    node.write(&write("waits", "late", 300)).await;
    let result = node.result().await;
    assert_eq!((result.id.as_str(), result.outcome), ("waits", Outcome::Expired));
    assert_eq!(bench("late").offered.load(SeqCst), 0);
}

#[tokio::test]
async fn a_write_that_expires_while_the_driver_waits_moves_nothing() {
    let (_broker, mut node, _running) = world().await;
    node.configure(&[config("slow")]).await;
    node.report("slow").await;
    bench("slow").wait_before_write.store(800, SeqCst);
    node.write(&write("w", "slow", 300)).await;
    assert_eq!(node.result().await.outcome, Outcome::Expired);
    sleep(Duration::from_secs(1)).await;
    assert_eq!((bench("slow").offered.load(SeqCst), bench("slow").written.load(SeqCst)), (1, 0));
    node.report("slow").await;
}

#[tokio::test]
async fn a_write_that_the_device_does_not_answer_in_time_is_unknown() {
    let (_broker, mut node, _running) = world().await;
    node.configure(&[config("mute")]).await;
    node.report("mute").await;
    bench("mute").wait_in_write.store(5000, SeqCst);
    node.write(&write("w", "mute", 300)).await;
    assert_eq!(node.result().await.outcome, Outcome::Unknown);
    bench("mute").wait_in_write.store(0, SeqCst);
    eventually(|| bench("mute").opened.load(SeqCst) >= 2).await;
}

#[tokio::test]
async fn an_id_is_carried_out_once_and_its_result_is_repeated() {
    let (_broker, mut node, _running) = world().await;
    node.configure(&[config("once")]).await;
    node.report("once").await;
    let request = write("w", "once", 5000);
    for _ in 0..3 {
        node.write(&request).await;
    }
    let first = node.result().await;
    assert_eq!(first.outcome, Outcome::Succeeded);
    node.write(&request).await;
    assert_eq!(node.result().await, first);
    assert_eq!(bench("once").offered.load(SeqCst), 1);
}

#[tokio::test]
async fn what_a_property_cannot_take_is_rejected() {
    let (_broker, mut node, _running) = world().await;
    node.configure(&[config("strict")]).await;
    node.report("strict").await;
    let wrong = [
        WriteRequest { value: Value::Float(101.0), ..write("range", "strict", 5000) },
        WriteRequest { value: Value::Bool(true), ..write("type", "strict", 5000) },
        WriteRequest { property: "nonsense".into(), ..write("name", "strict", 5000) },
    ];
    for request in wrong {
        node.write(&request).await;
        let result = node.result().await;
        assert_eq!((result.id, result.outcome), (request.id, Outcome::Rejected));
    }
    assert_eq!(bench("strict").offered.load(SeqCst), 0);
}

#[tokio::test]
async fn a_lost_broker_and_a_restart_write_nothing() {
    let (mut broker, mut node, running) = world().await;
    node.configure(&[config("calm")]).await;
    node.report("calm").await;
    node.write(&write("w", "calm", 5000)).await;
    let result = node.result().await;

    broker.restart().await;
    let mut node = Node::connect(&broker).await;
    assert_eq!(node.state().await, "online");
    node.write(&write("w", "calm", 5000)).await;
    assert_eq!(node.result().await, result, "an id stays done across connections");
    node.report("calm").await;
    assert_eq!(bench("calm").opened.load(SeqCst), 1, "the device has noticed nothing");
    node.configure(&[config("calm")]).await;
    node.report("calm").await;

    running.kill().await;
    assert_eq!(node.state().await, "offline", "the will");
    let _running = Running::start(&broker);
    assert_eq!(node.state().await, "online");
    node.report("calm").await;
    assert_eq!((bench("calm").opened.load(SeqCst), bench("calm").offered.load(SeqCst)), (2, 1));
}

#[tokio::test]
async fn a_driver_that_crashes_takes_only_its_own_device_along() {
    let (_broker, mut node, _running) = world().await;
    node.configure(&[config("crash"), config("stays")]).await;
    node.report("crash").await;
    bench("crash").panic_on_write.store(true, SeqCst);
    node.write(&write("w", "crash", 5000)).await;
    assert_eq!(node.result().await.outcome, Outcome::Unknown);
    node.report_of("crash", |report| {
        matches!(report.get("position"), Some(ReportBody::Full { quality: Quality::Bad, .. }))
    })
    .await;
    node.report("stays").await;
    node.write(&write("w2", "crash", 5000)).await;
    assert_eq!(node.result().await.outcome, Outcome::Failed, "it is left alone for a while");
    assert_eq!(bench("stays").opened.load(SeqCst), 1);
}

#[tokio::test]
async fn a_write_that_waits_is_refused_when_its_range_or_its_device_changes_meanwhile() {
    let (_broker, mut node, _running) = world().await;
    node.configure(&[config("narrowed"), config("rewired")]).await;
    for name in ["narrowed", "rewired"] {
        node.report(name).await;
        bench(name).hold_reading.store(true, SeqCst);
        let before = bench(name).readings().len();
        eventually(|| bench(name).readings().len() > before).await;
        node.write(&write(name, name, 10_000)).await;
    }
    let (mut narrowed, mut rewired) = (config("narrowed"), config("rewired"));
    narrowed.properties[0].maximum = Some(30.0);
    rewired.connection = Json::Object([("bench".to_owned(), Json::Text("rewired-to".into()))].into());
    node.configure(&[narrowed, rewired, config("new")]).await;
    eventually(|| bench("new").opened.load(SeqCst) != 0).await;
    for name in ["narrowed", "rewired"] {
        bench(name).hold_reading.store(false, SeqCst);
    }
    for _ in 0..2 {
        let result = node.result().await;
        assert_eq!(result.outcome, Outcome::Rejected, "{result:?}");
        assert!(result.detail.contains("configuration changed"), "{result:?}");
    }
    assert_eq!(["narrowed", "rewired", "rewired-to"].map(|name| bench(name).offered.load(SeqCst)), [0; 3]);
}

#[tokio::test]
async fn a_new_configuration_touches_only_what_changed() {
    let (_broker, mut node, _running) = world().await;
    node.configure(&[config("same"), config("slower"), config("moved-away")]).await;
    for name in ["same", "slower", "moved-away"] {
        node.report(name).await;
    }
    let mut slower = config("slower");
    slower.properties[0].poll_ms = 200;
    let mut elsewhere = config("moved-away");
    elsewhere.connection = Json::Object([("bench".to_owned(), Json::Text("new-place".into()))].into());
    node.configure(&[config("same"), slower, elsewhere]).await;
    eventually(|| bench("new-place").opened.load(SeqCst) != 0).await;
    let counts = |name: &str| (bench(name).opened.load(SeqCst), bench(name).closed.load(SeqCst));
    assert_eq!(["same", "slower", "moved-away", "new-place"].map(counts), [(1, 0), (1, 0), (1, 1), (1, 0)]);
}

#[tokio::test]
async fn a_stop_lets_a_write_finish_and_says_how_it_ended() {
    let (_broker, mut node, running) = world().await;
    node.configure(&[config("stopping")]).await;
    node.report("stopping").await;
    bench("stopping").wait_in_write.store(700, SeqCst);
    node.write(&write("w", "stopping", 5000)).await;
    eventually(|| bench("stopping").written.load(SeqCst) != 0).await;
    running.stop().await;
    assert_eq!(node.result().await.outcome, Outcome::Succeeded);
    assert_eq!(node.state().await, "offline");
    assert_eq!(bench("stopping").value(), 40.0);
}
