use tracing_subscriber::prelude::*;

use super::*;

#[test]
fn lines_are_taken_down_to_a_level_bounded_and_never_those_of_sending() {
    let lines: &Lines = Box::leak(Box::new(Lines::new()));
    let log = tracing_subscriber::registry().with(of(lines));
    tracing::subscriber::with_default(log, || {
        lines.listen(LogLevel::Off);
        tracing::error!(target: "other", "nobody listens");
        lines.listen(LogLevel::Info);
        tracing::warn!(target: "node::io::otlp", "cannot send");
        tracing::info!(target: "hyper::proto", "below it");
        tracing::debug!(target: "other", "too small");
        tracing::info!(target: "hyperactive", count = u64::MAX, ok = true, share = f64::NAN, why = %"x".repeat(9_999), "said");
    });
    let batch = lines.take().unwrap();
    let shown = batch.request("edge/a");
    let records = shown["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().unwrap();
    let [record] = &records[..] else { panic!("{shown}") };
    assert_eq!((&record["body"]["stringValue"], &record["severityNumber"]), (&"said".into(), &9.into()));
    let attributes: Vec<&Value> =
        record["attributes"].as_array().unwrap().iter().map(|a| &a["value"]).collect();
    let long = "x".repeat(MAX_TEXT);
    let expected = [
        json!({ "stringValue": "hyperactive" }),
        json!({ "stringValue": u64::MAX.to_string() }),
        json!({ "boolValue": true }),
        json!({ "stringValue": "NaN" }),
        json!({ "stringValue": long }),
    ];
    assert_eq!(attributes, expected.iter().collect::<Vec<_>>());
    assert_eq!(lines.take(), None);
    let log = tracing_subscriber::registry().with(of(lines));
    tracing::subscriber::with_default(log, || {
        (0..WAITING + 5).for_each(|n| tracing::info!(target: "other", n, "one of many"))
    });
    let batch = lines.take().unwrap();
    assert_eq!((batch.lines.len(), batch.dropped), (BATCH, 5));
    let shown = batch.request("edge/a").to_string();
    assert!(shown.contains("5 lines of the log found no room"), "{shown}");
}

/// Texts of any length and script, and as many fields as there may be.
#[test]
fn what_waits_is_bounded_in_bytes() {
    let lines: &Lines = Box::leak(Box::new(Lines::new()));
    let log = tracing_subscriber::registry().with(of(lines));
    let long = "ü€".repeat(10_000);
    tracing::subscriber::with_default(log, || {
        (0..WAITING).for_each(|_| tracing::info!(target: "other", a = %long, b = ?long, c = long, "{long}"))
    });
    let (bytes, waiting) = lines.with(|queue| (queue.bytes, queue.lines.len()));
    let size = lines.with(|queue| queue.lines.front().map_or(0, Line::size));
    assert!((4 * (MAX_TEXT - 3)..5 * MAX_TEXT).contains(&size), "{size}");
    assert!(bytes <= WAITING_BYTES && bytes + size > WAITING_BYTES, "{bytes}");
    let mut taken = 0;
    while let Some(batch) = lines.take() {
        assert!(batch.lines.iter().map(Line::size).sum::<usize>() <= BATCH_BYTES);
        taken += batch.lines.len() + usize::try_from(batch.dropped).unwrap();
    }
    assert!(waiting < taken);
    assert_eq!((taken, lines.with(|queue| queue.bytes)), (WAITING, 0));
}
