//! The resource API at the seam: what is asked of a node, and what it answers.
//!
//! Reads are answered with undecoded items, so that whoever lists ten thousand devices decodes them himself. Writes are
//! answered when they are durable.

use controller::api::call::Write;
use controller::api::draft::Moment;
use controller::api::read::{Found, Read};
use controller::api::refusal::Cause;
use controller::api::{Index, Item, Layout, Refusal};
use controller::resource::InvalidManifest;
use controller::role::Asker;
use metadata::Keyspace;
use serde_json::Value;

use crate::admin::{AdminError, Fault, describe};
use crate::journal::Speech;
use crate::seam::Output;
use crate::steering::{Steered, Steering};

/// One question.
#[derive(Debug, Clone, PartialEq)]
pub enum ApiRequest {
    /// What kind of node this is.
    Layout,
    Read(Read),
    Write(Box<Order>),
    Steer(Box<Steering>),
}

/// A write, with what a core cannot know.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    pub write: Write,
    /// The object, the patch, or the options of a delete.
    pub body: Value,
    /// Who writes, and as what.
    pub asker: Asker,
    /// Of a new token.
    pub secret: [u8; bus::JoinToken::SECRET_LEN],
}

#[derive(Debug, Clone, PartialEq)]
pub enum ApiAnswer {
    Layout(Layout),
    Found(Found),
    Written(Result<Written, Refusal>),
    Steered(Result<Steered, Refusal>),
}

/// What a write came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    pub is_new: bool,
    pub outcome: Outcome,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// As it is now.
    Item(Box<Item>),
    /// Gone. This is what it was.
    Gone(Box<Item>),
}

/// How a request is answered: a write once it is durable; while the disk refuses, not at all but with a refusal.
pub(crate) struct Answering {
    id: u64,
    writes: bool,
}

impl Answering {
    /// `None`: it is refused, and that is said.
    pub(crate) fn begin(
        id: u64,
        request: &ApiRequest,
        degraded_by: Option<&str>,
        said: &mut Speech<Output>,
    ) -> Option<Self> {
        let writes = request.writes();
        let Some(why) = degraded_by.filter(|_| writes) else { return Some(Self { id, writes }) };
        said.push_back(Output::Api { id, answer: ApiAnswer::Written(Err(degraded(why))) });
        None
    }

    pub(crate) fn end(self, answer: ApiAnswer, said: &mut Speech<Output>) {
        let Self { id, writes } = self;
        let answer = Output::Api { id, answer };
        match writes {
            true => said.promise(answer, Some(Output::Api { id, answer: unkept() })),
            false => said.push_back(answer),
        }
    }
}

impl ApiRequest {
    pub(crate) fn writes(&self) -> bool {
        match self {
            Self::Write(order) => !order.write.options.dry_run,
            Self::Steer(steering) => steering.writes(),
            Self::Layout | Self::Read(_) => false,
        }
    }
}

pub(crate) fn moment(keyspace: &Keyspace, now: bus::Now) -> Moment {
    Moment { now: now.wall, revision: keyspace.revision() }
}

/// While the disk refuses writes.
fn degraded(why: &str) -> Refusal {
    Refusal::new(507, "ServiceUnavailable", AdminError::Degraded(why.to_owned()).to_string())
}

/// Written in memory when the disk began to refuse.
fn unkept() -> ApiAnswer {
    ApiAnswer::Written(Err(Refusal::new(507, "ServiceUnavailable", AdminError::Unkept.to_string())))
}

pub(crate) fn causes(errors: &[InvalidManifest]) -> Vec<Cause> {
    let cause = |error: &InvalidManifest| {
        let field = error.field().unwrap_or_default();
        let text = describe(error);
        // "Device: spec.x: why" names kind and field once more.
        let why = text.split_once(": ").map_or(text.as_str(), |(_, rest)| rest);
        let why = why.strip_prefix(field).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(why);
        Cause::invalid(field, format!("Invalid value: {why}"))
    };
    errors.iter().map(cause).collect()
}

/// The same refusal in the terms of the admin socket's own paths.
pub(crate) fn as_admin(refusal: &Refusal) -> AdminError {
    let fault = |cause: &Cause| Fault {
        message: format!("{}: {}", cause.field, cause.message),
        field: cause.field.clone(),
    };
    match refusal.code {
        404 => AdminError::NotFound(refusal.message.clone()),
        409 => AdminError::Conflict(refusal.message.clone()),
        422 if !refusal.causes.is_empty() => AdminError::Manifest(refusal.causes.iter().map(fault).collect()),
        _ => AdminError::Invalid(refusal.message.clone()),
    }
}

/// The same in the terms of the resource API.
pub(crate) fn as_refusal(error: &AdminError) -> Refusal {
    let text = error.to_string();
    match error {
        AdminError::NotFound(_) => Refusal::new(404, "NotFound", text),
        AdminError::Conflict(_) => Refusal::new(409, "Conflict", text),
        AdminError::Invalid(_) | AdminError::Manifest(_) => Refusal::new(422, "Invalid", text),
        AdminError::CloudOnly | AdminError::Standby(_) => Refusal::new(421, "MisdirectedRequest", text),
        AdminError::Away(_) => Refusal::new(503, "ServiceUnavailable", text),
        AdminError::Degraded(_) | AdminError::Unkept => Refusal::new(507, "ServiceUnavailable", text),
    }
}

/// Around a seal: what is gone leaves a row, and what changed is as new as the revision.
pub(crate) fn seal(index: &mut Index, keyspace: &mut Keyspace, close: impl FnOnce(&mut Keyspace)) {
    index.before_seal(keyspace);
    let before = keyspace.revision();
    close(keyspace);
    if keyspace.revision() > before {
        index.after_seal(keyspace);
    }
}
