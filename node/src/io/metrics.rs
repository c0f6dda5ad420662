//! Counters in Prometheus' text format (version 0.0.4).

use std::fmt::Write;

use serde_json::Value;

/// Renders the object `counters` of a status document: a field `bus_forwarded` becomes `kubebus_bus_forwarded_total`,
/// and an object of numbers becomes one metric with the label `reason`.
pub fn render(status: &Value) -> String {
    let mut out = String::new();
    let Some(counters) = status.get("counters").and_then(Value::as_object) else { return out };
    for (name, value) in counters {
        let metric = format!("kubebus_{name}_total");
        let _ = writeln!(out, "# TYPE {metric} counter");
        if let Value::Object(by_reason) = value {
            for (reason, value) in by_reason {
                let _ = writeln!(out, "{metric}{{reason=\"{reason}\"}} {value}");
            }
        } else {
            let _ = writeln!(out, "{metric} {value}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_become_metrics_and_reasons_become_labels() {
        let status =
            serde_json::json!({ "counters": { "bus_forwarded": 3, "router_dropped": { "spoofed": 1 } } });
        let expected = "# TYPE kubebus_bus_forwarded_total counter\nkubebus_bus_forwarded_total 3\n\
                        # TYPE kubebus_router_dropped_total counter\nkubebus_router_dropped_total{reason=\"spoofed\"} 1\n";
        assert_eq!(render(&status), expected);
    }
}
