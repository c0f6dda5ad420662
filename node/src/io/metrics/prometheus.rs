//! Prometheus' text format, version 0.0.4.

use std::fmt::Write;

use crate::health::{Fleet, NodeView, Series};

/// One node after the other within each metric: a metric's lines stand together.
pub(in crate::io) fn render(fleet: &Fleet) -> String {
    let mut out = String::new();
    for series in Series::ALL {
        let row = series.row();
        for NodeView { node, values, .. } in &fleet.nodes {
            if let Some(value) = values.get(*series) {
                let _ = writeln!(out, "{}{{node=\"{node}\"}} {value}", row.metric);
            }
        }
    }
    out
}
