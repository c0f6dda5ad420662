//! Why a request was not carried out: Kubernetes' `Status`.

use serde_json::{Value, json};
use thiserror::Error;

/// What is wrong, in the terms of `metav1.Status`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct Refusal {
    /// HTTP status.
    pub code: u16,
    /// One word for machines: `NotFound`, `Conflict`, `Invalid`, ...
    pub reason: &'static str,
    pub message: String,
    pub causes: Vec<Cause>,
    pub about: Option<Box<About>>,
}

/// What a refusal is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    pub group: &'static str,
    /// Plural, or kind.
    pub kind: String,
    pub name: String,
}

impl About {
    pub fn new(group: &'static str, kind: &str, name: &str) -> Option<Box<Self>> {
        Some(Box::new(Self { group, kind: kind.to_owned(), name: name.to_owned() }))
    }
}

/// One field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    pub reason: &'static str,
    pub message: String,
    /// `spec.properties[0].minimum`; empty: the object as a whole.
    pub field: String,
}

impl Refusal {
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), causes: Vec::new(), about: None }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub fn not_found(group: &'static str, plural: &str, name: &str) -> Self {
        let of = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
        Self {
            about: About::new(group, plural, name),
            ..Self::new(404, "NotFound", format!("{of} \"{name}\" not found"))
        }
    }

    pub fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    pub fn not_allowed(message: impl Into<String>) -> Self {
        Self::new(405, "MethodNotAllowed", message)
    }

    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(403, "Forbidden", message)
    }

    /// The resourceVersion is older than the deletions that are remembered.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, "RequestEntityTooLarge", message)
    }

    pub fn conflict(group: &'static str, plural: &str, name: &str, why: &str) -> Self {
        let of = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
        Self {
            about: About::new(group, plural, name),
            ..Self::new(409, "Conflict", format!("Operation cannot be fulfilled on {of} \"{name}\": {why}"))
        }
    }

    pub fn exists(group: &'static str, plural: &str, name: &str) -> Self {
        let of = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
        Self {
            about: About::new(group, plural, name),
            ..Self::new(409, "AlreadyExists", format!("{of} \"{name}\" already exists"))
        }
    }

    /// Fields that are wrong, all of them.
    pub fn invalid(group: &'static str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let of = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let each: Vec<String> = causes
            .iter()
            .map(|cause| match cause.field.as_str() {
                "" => cause.message.clone(),
                field if cause.message.starts_with(field) => cause.message.clone(),
                field => format!("{field}: {}", cause.message),
            })
            .collect();
        let what = match each.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        Self {
            about: About::new(group, kind, name),
            causes,
            ..Self::new(422, "Invalid", format!("{of} \"{name}\" is invalid: {what}"))
        }
    }

    /// As the client gets it.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        let mut details = json!({});
        if let Some(About { group, kind, name }) = self.about.as_deref() {
            details = json!({ "name": name, "group": group, "kind": kind });
        }
        if !self.causes.is_empty() {
            let cause = |cause: &Cause| json!({ "reason": cause.reason, "message": cause.message, "field": cause.field });
            details["causes"] = self.causes.iter().map(cause).collect();
        }
        if details.as_object().is_some_and(|details| !details.is_empty()) {
            status["details"] = details;
        }
        status
    }
}

impl Cause {
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: "FieldValueInvalid", message: message.into(), field: field.into() }
    }
}
