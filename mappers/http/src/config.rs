//! What a manifest says of a device that speaks HTTP, checked.

use std::collections::BTreeMap;
use std::time::Duration;

use data_encoding::BASE64;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::http::Uri;
use kubebus_sdk::{Error, JsonSchema};
use mapper_payload::{Pointer, Sought, Template, Words};
use serde::Deserialize;

/// How long a device may take for an answer, if the settings say nothing, and at most: the SDK gives a reading no more.
const TIMEOUT: Duration = Duration::from_secs(5);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How a device is reached, and how it reaches us.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "kubebus_sdk::schemars")]
pub struct Config {
    /// Where the device is: `http://10.0.0.4`, `http://10.0.0.4:8080/api`. Not needed for one that only calls a webhook.
    #[serde(default)]
    pub url: Option<String>,
    /// Sent with each request.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Basic authentication (RFC 7617).
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub password: Option<String>,
    /// A bearer token (RFC 6750).
    #[serde(default)]
    pub bearer: Option<String>,
    /// How long the device may take for an answer, in milliseconds, 10,000 at most.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Where the device calls us.
    #[serde(default)]
    pub webhook: Option<Webhook>,
}

/// Where a device calls us, and how it proves that it is the one. A token or a secret is needed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "kubebus_sdk::schemars")]
pub struct Webhook {
    /// The address that the mapper listens on: `0.0.0.0:8090`. Devices may share it.
    pub listen: String,
    /// The path that the device calls, its own: `/hooks/door`.
    pub path: String,
    /// What it sends as `Authorization: Bearer TOKEN`, or as the whole of `header`.
    #[serde(default)]
    pub token: Option<String>,
    /// The key of its signature: HMAC-SHA-256 of the body, in hexadecimal, `sha256=` before it or not.
    #[serde(default)]
    pub secret: Option<String>,
    /// Another header than `authorization` (token) or `x-hub-signature-256` (secret).
    #[serde(default)]
    pub header: Option<String>,
}

/// Where a property is in what the device answers or sends.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "kubebus_sdk::schemars")]
pub struct Address {
    /// The path that is read, after the device's `url`; properties of one path are read in one request.
    #[serde(default)]
    pub path: Option<String>,
    /// Where in the JSON answer the value is; without one it is the whole answer.
    #[serde(default)]
    pub pointer: Option<Pointer>,
    /// Where in the answer the time of the measurement is: seconds or milliseconds since 1970, or RFC 3339.
    #[serde(default)]
    pub time: Option<Pointer>,
    /// What the device says for true, if not one of the usual words.
    #[serde(default)]
    pub on: Option<String>,
    #[serde(default)]
    pub off: Option<String>,
    #[serde(default)]
    pub write: Option<Write>,
}

/// How a property is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "kubebus_sdk::schemars")]
pub struct Write {
    #[serde(default)]
    pub method: Method,
    /// The path, if it is not the one that is read; `${text}` in it is the value.
    #[serde(default)]
    pub path: Option<Template>,
    /// The body; without one the value as JSON (`PUT`, `POST`, `PATCH`) or nothing (`GET`).
    #[serde(default)]
    pub body: Option<Template>,
    /// The body's type, `application/json` if nothing is said.
    #[serde(default)]
    pub content_type: Option<String>,
    /// Which status means success; without one, any from 200 to 299.
    #[serde(default)]
    pub expect: Vec<u16>,
    /// Where in the answer the device says what it now holds.
    #[serde(default)]
    pub readback: Option<Pointer>,
}

/// How a write is sent. `GET` is for devices that know nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(crate = "kubebus_sdk::schemars")]
pub enum Method {
    #[default]
    Put,
    Post,
    Patch,
    Get,
}

/// Where a device is, and what is sent with each request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Before each path: empty, or `/api` without a slash at its end.
    base: String,
    pub(crate) headers: HeaderMap,
    pub(crate) timeout: Duration,
}

impl Config {
    pub(crate) fn target(&self) -> Result<Option<Target>, Error> {
        let Some(url) = &self.url else { return Ok(None) };
        let uri: Uri = url.parse().map_err(|_| wrong("url", "looks like http://10.0.0.4/api"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(wrong("url", "https is not spoken: put a proxy in the device's network"));
            }
            Some(_) | None => return Err(wrong("url", "begins with http://")),
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("url", "names no host"))?;
        if uri.query().is_some() || uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err(wrong("url", "has no query and no user: see path, user, password"));
        }
        let mut headers = self.headers()?;
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        headers.insert(HOST, value("url", &authority)?);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let base = uri.path().trim_end_matches('/').to_owned();
        Ok(Some(Target { host, port: uri.port_u16().unwrap_or(80), base, headers, timeout: self.timeout()? }))
    }

    fn headers(&self) -> Result<HeaderMap, Error> {
        let mut headers = HeaderMap::new();
        for (name, text) in &self.headers {
            let name: HeaderName =
                name.parse().map_err(|_| wrong("headers", &format!("{name} is no header's name")))?;
            headers.insert(name, value("headers", text)?);
        }
        let credentials = match (&self.user, &self.password, &self.bearer) {
            (None, None, None) => return Ok(headers),
            (Some(user), password, None) => {
                let pair = format!("{user}:{}", password.as_deref().unwrap_or_default());
                format!("Basic {}", BASE64.encode(pair.as_bytes()))
            }
            (None, None, Some(token)) => format!("Bearer {token}"),
            (None, Some(_), None) => return Err(wrong("password", "needs a user")),
            (_, _, Some(_)) => return Err(wrong("bearer", "does not go with user and password")),
        };
        let mut credentials = value("bearer", &credentials)?;
        credentials.set_sensitive(true);
        headers.insert(AUTHORIZATION, credentials);
        Ok(headers)
    }

    fn timeout(&self) -> Result<Duration, Error> {
        let timeout = self.timeout_ms.map_or(TIMEOUT, Duration::from_millis);
        if timeout.is_zero() || timeout > LONGEST_TIMEOUT {
            return Err(wrong("timeout_ms", "is from 1 to 10000"));
        }
        Ok(timeout)
    }
}

impl Target {
    /// The request's target for a path of the manifest, or why it is none.
    pub(crate) fn path(&self, path: &str) -> Result<Uri, String> {
        let slash = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
        let mut whole = format!("{}{slash}{path}", self.base);
        if !whole.starts_with('/') {
            whole.insert(0, '/');
        }
        whole
            .parse()
            .map_err(|_| format!("path: '{path}' is no path: spaces and the like are written as %20"))
    }
}

impl Address {
    pub(crate) fn words(&self) -> Words {
        Words { on: self.on.clone(), off: self.off.clone() }
    }

    pub(crate) fn sought(&self) -> Sought {
        Sought { pointer: self.pointer.clone(), time: self.time.clone(), words: self.words() }
    }
}

fn value(field: &str, text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(text).map_err(|_| wrong(field, "has characters that no header may have"))
}

pub(crate) fn wrong(field: &str, why: &str) -> Error {
    Error::Config(format!("{field}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(json: &str) -> Result<Option<Target>, Error> {
        serde_json::from_str::<Config>(json).unwrap().target()
    }

    #[test]
    fn a_url_becomes_a_target() {
        let target =
            target(r#"{"url":"http://10.0.0.4:8080/api/","user":"u","password":"p"}"#).unwrap().unwrap();
        assert_eq!((target.host.as_str(), target.port, target.timeout), ("10.0.0.4", 8080, TIMEOUT));
        assert_eq!(target.headers[HOST], "10.0.0.4:8080");
        assert_eq!(target.headers[AUTHORIZATION], "Basic dTpw");
        for (path, whole) in [("/status", "/api/status"), ("status?x=1", "/api/status?x=1"), ("", "/api")] {
            assert_eq!(target.path(path).unwrap(), whole);
        }
        assert!(target.path("/a b").unwrap_err().contains("path"));
    }

    #[test]
    fn the_shortest_url_works() {
        let target = target(r#"{"url":"http://[::1]","bearer":"t"}"#).unwrap().unwrap();
        assert_eq!((target.host.as_str(), target.port), ("::1", 80));
        assert_eq!(target.path("").unwrap(), "/");
        assert_eq!(target.headers[AUTHORIZATION], "Bearer t");
        assert!(target.headers[AUTHORIZATION].is_sensitive());
    }

    #[test]
    fn what_cannot_work_names_its_field() {
        let table = [
            (r#"{"url":"ftp://x"}"#, "url"),
            (r#"{"url":"https://x"}"#, "url"),
            (r#"{"url":"10.0.0.4"}"#, "url"),
            (r#"{"url":"http://u:p@x"}"#, "url"),
            (r#"{"url":"http://x?q=1"}"#, "url"),
            (r#"{"url":"http://x","password":"p"}"#, "password"),
            (r#"{"url":"http://x","user":"u","bearer":"t"}"#, "bearer"),
            (r#"{"url":"http://x","timeout_ms":0}"#, "timeout_ms"),
            (r#"{"url":"http://x","timeout_ms":60000}"#, "timeout_ms"),
            (r#"{"url":"http://x","headers":{"a b":"c"}}"#, "headers"),
            (r#"{"url":"http://x","headers":{"a":"b\nc"}}"#, "headers"),
        ];
        for (json, field) in table {
            assert!(matches!(target(json), Err(Error::Config(why)) if why.starts_with(field)), "{json}");
        }
        assert_eq!(target("{}"), Ok(None));
    }
}
