//! Counters in Prometheus' text format (version 0.0.4).

use std::fmt::Write;

use serde_json::Value;

/// Renders a status document: whether the disk refuses writes, and the object `counters`, of which a field
/// `bus_forwarded` becomes `kubebus_bus_forwarded_total`, and an object of numbers one metric with the label `reason`.
pub fn render(status: &Value) -> String {
    let mut out = String::new();
    if let Some(state) = status.pointer("/disk/state") {
        let degraded = u8::from(state == "degraded");
        let _ = writeln!(out, "# TYPE kubebus_disk_degraded gauge\nkubebus_disk_degraded {degraded}");
    }
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
    fn a_disk_that_refuses_is_a_gauge() {
        let status = serde_json::json!({ "disk": { "state": "degraded" } });
        assert_eq!(render(&status), "# TYPE kubebus_disk_degraded gauge\nkubebus_disk_degraded 1\n");
    }

    #[test]
    fn counters_become_metrics_and_reasons_become_labels() {
        let status =
            serde_json::json!({ "counters": { "bus_forwarded": 3, "router_dropped": { "spoofed": 1 } } });
        let expected = "# TYPE kubebus_bus_forwarded_total counter\nkubebus_bus_forwarded_total 3\n\
                        # TYPE kubebus_router_dropped_total counter\nkubebus_router_dropped_total{reason=\"spoofed\"} 1\n";
        assert_eq!(render(&status), expected);
    }
}
