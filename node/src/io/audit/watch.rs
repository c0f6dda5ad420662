//! What of a request is written down.

use bus::UnixMillis;
use bytes::Bytes;
use controller::role::{Asker, Request, request};
use http_body_util::BodyExt;
use hyper::Response;
use hyper::header::{HeaderValue, WARNING};
use serde::Deserialize;
use serde_json::Value;
use tracing::error;

use super::super::api::{AnswerBody, BACKUP, Origin};
use super::Handle;
use crate::audit::{Entry, brief, steered};
use crate::diagnose::redact;

/// A request that leaves a line, before it is answered.
#[derive(Debug)]
pub(in crate::io) struct Audited {
    entry: Entry,
    asker: Asker,
}

/// `None`: it changes nothing. A backup is all of the cluster's keys, so it counts.
pub(in crate::io) fn begin(
    asker: &Asker,
    origin: Option<&Origin>,
    asked: Request<'_>,
    now: UnixMillis,
) -> Option<Audited> {
    if request::only_reads(asked) && asked.path != BACKUP {
        return None;
    }
    let from = match origin {
        Some(Origin::Address(address)) => address.to_string(),
        Some(Origin::Page(address)) => format!("{address}, page"),
        Some(Origin::Console { uid: Some(uid) }) => format!("console, uid {uid}"),
        Some(Origin::Console { uid: None }) | None => "console".to_owned(),
    };
    let entry = Entry {
        time: now,
        who: asker.who.to_string(),
        role: asker.role.to_string(),
        from,
        what: brief(&format!("{} {}", asked.method, without_tokens(asked.path))),
        detail: String::new(),
        status: 0,
        why: String::new(),
    };
    Some(Audited { entry, asker: asker.clone() })
}

/// A path without what somebody gave whole where an id was meant.
fn without_tokens(path: &str) -> String {
    let level = |level: &str| match level.to_ascii_lowercase().contains("kb1.") {
        true => redact::REMOVED.to_owned(),
        false => level.to_owned(),
    };
    path.split('/').map(level).collect::<Vec<_>>().join("/")
}

impl Audited {
    /// What the body says, where it holds no secrets.
    pub(in crate::io) fn note(&mut self, path: &str, body: &[u8]) {
        self.entry.detail = brief(&redact::text(&detail(path, body)));
    }

    /// Writes the line, with what came of it; the answer, with a warning if that failed.
    pub(in crate::io) async fn end(
        mut self,
        log: &Handle,
        mut response: Response<AnswerBody>,
    ) -> Response<AnswerBody> {
        self.entry.status = response.status().as_u16();
        if response.status().is_client_error() || response.status().is_server_error() {
            if !log.has_line(&self.asker.who) {
                return response;
            }
            self.entry.why = brief(&redact::text(&why(&response).await));
        }
        if let Err(failed) = log.write(self.entry).await {
            error!(why = %failed, "a request was answered and is not in the audit log");
            let warning = HeaderValue::from_str(&format!("299 kubebus \"{}\"", brief(&failed.to_string())));
            warning.into_iter().for_each(|warning| drop(response.headers_mut().insert(WARNING, warning)));
        }
        response
    }
}

/// Under these paths of `/kubebus/v1/` bodies are values, labels, prefixes and roles.
const PLAIN: [&str; 7] = ["twins", "changes", "labels", "routes", "users", "clients", "page"];

fn detail(path: &str, body: &[u8]) -> String {
    let ours = path.strip_prefix("/kubebus/v1/");
    let part = steered(path);
    if ours.is_some_and(|rest| rest.split('/').next().is_some_and(|first| PLAIN.contains(&first)))
        || part.is_some_and(|part| !part.is_empty())
    {
        // What is longer is cut anyway.
        return String::from_utf8_lossy(&body[..body.len().min(1024)]).into_owned();
    }
    let manifest = serde_json::from_slice::<Manifest>(body).map(|manifest| manifest.to_string());
    let wished = part.map(|_| wished(body)).filter(|wished| !wished.is_empty());
    manifest.ok().into_iter().chain(wished).collect::<Vec<_>>().join(": ")
}

/// What a write of a device wishes: `position=40`; of a JSON patch where: `/spec/properties/0/desired/value=40`.
fn wished(body: &[u8]) -> String {
    let patch: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let of_property = |property: &Value| {
        let value = property["desired"].get("value")?;
        Some(format!("{}={}", property["name"].as_str()?, text(value)))
    };
    // Of other fields the value may be a secret; what is copied is named.
    let of_operation = |operation: &Value| {
        let path = operation["path"].as_str().filter(|path| path.contains("/desired"))?;
        let value = operation.get("value").or_else(|| operation.get("from")).unwrap_or(&operation["op"]);
        Some(format!("{path}={}", text(value)))
    };
    let wishes: Vec<String> = match patch.as_array() {
        Some(operations) => operations.iter().filter_map(of_operation).collect(),
        None => {
            patch["spec"]["properties"].as_array().into_iter().flatten().filter_map(of_property).collect()
        }
    };
    wishes.join(", ")
}

/// Whose a manifest is; the rest is skipped unread.
#[derive(Deserialize)]
struct Manifest {
    kind: String,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
}

impl std::fmt::Display for Manifest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, metadata: Metadata { namespace, name } } = self;
        match namespace.as_str() {
            "" => write!(f, "{kind} {name}"),
            _ => write!(f, "{kind} {namespace}/{name}"),
        }
    }
}

/// What a refusal says.
async fn why(response: &Response<AnswerBody>) -> String {
    let AnswerBody::Whole(whole) = response.body() else { return String::new() };
    let Ok(body) = whole.clone().collect().await;
    let body: Bytes = body.to_bytes();
    let told = serde_json::from_slice::<Value>(&body).unwrap_or_default();
    let text = told.get("error").or_else(|| told.get("message")).and_then(|text| text.as_str());
    text.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_where_an_id_was_meant_is_not_written_down() {
        assert_eq!(without_tokens("/kubebus/v1/tokens/kb1.abc.def"), "/kubebus/v1/tokens/(removed)");
        assert_eq!(without_tokens("/kubebus/v1/tokens/mfrggzdf"), "/kubebus/v1/tokens/mfrggzdf");
    }

    #[test]
    fn secrets_stay_out_and_objects_have_their_names() {
        for (path, body, expected) in [
            ("/kubebus/v1/twins/water/valve/desired/position", "40", "40"),
            ("/kubebus/v1/wireguard", r#"{"name":"phone","keys":{"preshared":"x"}}"#, ""),
            ("/kubebus/v1/tokens", r#"{"site":"a"}"#, ""),
            (
                "/kubebus/v1/resources",
                r#"{"kind":"Device","metadata":{"name":"valve","namespace":"water"},"spec":{"password":"x"}}"#,
                "Device water/valve",
            ),
            ("/apis/kubebus.io/v1alpha1/rules", r#"{"kind":"Rule","metadata":{"name":"r"}}"#, "Rule r"),
            ("/apis/kubebus.io/v1alpha1/rules/r", r#"[{"op":"add"}]"#, ""),
            (
                "/apis/devices.kubeedge.io/v1beta1/namespaces/water/devices/valve",
                r#"{"spec":{"protocol":{"configData":{"x":"y"}},"properties":[{"name":"position","desired":{"value":"40"}}]}}"#,
                "position=40",
            ),
            (
                "/apis/devices.kubeedge.io/v1beta1/namespaces/water/devices/valve",
                r#"[{"op":"replace","path":"/spec/properties/0/desired/value","value":"100"},{"op":"add","path":"/spec/x","value":"y"}]"#,
                "/spec/properties/0/desired/value=100",
            ),
            (
                "/apis/devices.kubeedge.io/v1beta1/namespaces/water/devices/valve",
                r#"{"kind":"Device","metadata":{"name":"valve"},"spec":{"properties":[{"name":"position","desired":{"value":"40"}}]}}"#,
                "Device valve: position=40",
            ),
            (
                "/apis/devices.kubeedge.io/v1beta1/namespaces/water/devices/valve/desired",
                r#"{"spec":{"position":40}}"#,
                r#"{"spec":{"position":40}}"#,
            ),
        ] {
            assert_eq!(detail(path, body.as_bytes()), expected, "{path}");
        }
    }
}
