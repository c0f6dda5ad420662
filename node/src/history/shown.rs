//! The history as a document, the same at an edge and at its cloud.

use bus::UnixMillis;
use device_twin::history::overview::{Point, Values};
use device_twin::history::{Answer, Cursor, Gap, Overview, Row};
use serde_json::{Value, json};

use super::Told;

pub(crate) fn document(told: Told) -> Value {
    match told {
        Told::Overview(overview) => plot(overview),
        Told::Rows(answer) => page(answer),
    }
}

fn plot(Overview { points, gaps }: Overview) -> Value {
    let point = |Point { since, until, quality, values }: Point| {
        let mut shown = json!({ "since": since, "until": until, "quality": quality });
        if let Some(Values { first, last, least, greatest }) = values {
            for (name, value) in [("first", first), ("last", last), ("least", least), ("greatest", greatest)]
            {
                shown[name] = value.into();
            }
        }
        shown
    };
    json!({ "points": points.into_iter().map(point).collect::<Vec<_>>(), "gaps": shown_gaps(gaps) })
}

fn page(Answer { rows, next, gaps }: Answer) -> Value {
    let row = |Row { id, sample, stored }: Row| {
        json!({
            "device": id.device.to_string(), "property": &*id.property, "time": sample.time,
            "value": sample.value, "quality": sample.quality, "stored": stored,
        })
    };
    let next = next.map(|Cursor { time, id, ordinal }| format!("{},{ordinal},{id}", time.0));
    json!({ "rows": rows.into_iter().map(row).collect::<Vec<_>>(), "gaps": shown_gaps(gaps), "next": next })
}

fn shown_gaps(gaps: Vec<Gap>) -> Vec<Value> {
    let gap =
        |Gap { since, until, samples }: Gap| json!({ "since": since, "until": until, "samples": samples });
    gaps.into_iter().map(gap).collect()
}

/// A time, for people.
pub(crate) fn time(at: UnixMillis) -> String {
    device_twin::history::csv::rfc3339(at)
}
