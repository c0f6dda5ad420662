//! An HTTP request, and what it asks for.

mod query;

use std::time::Duration;

use metadata::Revision;

use self::query::Query;
use super::selector::Selectors;
use super::{Id, Kind, Part, Refusal, Verb};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

/// What of an HTTP request counts.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub method: Method,
    pub path: &'a str,
    pub query: &'a str,
    pub accept: &'a str,
    pub content_type: &'a str,
    pub user_agent: &'a str,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    Version,
    /// `/api` or `/apis`; whole, or only the groups' names.
    Groups {
        core: bool,
        aggregated: Option<&'static str>,
    },
    Group {
        group: String,
    },
    Resources {
        group: String,
        version: String,
    },
    OpenApi,
    OpenApiOf {
        group: String,
        version: String,
    },
    /// `SelfSubjectReview` and `SelfSubjectAccessReview`.
    WhoAmI,
    MayI,
    Get {
        kind: Kind,
        id: Id,
        form: Form,
    },
    List {
        kind: Kind,
        of: Listing,
        form: Form,
    },
    Watch {
        kind: Kind,
        of: Listing,
        form: Form,
        watch: Watch,
    },
    Write(Write),
    Steer(Steer),
}

/// How a client wants to see objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Object,
    /// Rows of cells, each with the object's metadata, the whole object, or nothing.
    Table(Include),
    /// Metadata alone.
    Partial,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    None,
    Metadata,
    Object,
}

/// A limit from here on is not kept, which Kubernetes leaves to a server (`ListOptions.limit`): 500 is what `kubectl` and
/// client-go's reflectors ask for by themselves. After its tenth request `kubectl` waits 200 ms before each, so that pages
/// cost it more than what is on them: 10,000 devices took it 2.2 s. An answer is written page by page here anyway.
const WHOLE_FROM: u64 = 500;

/// Which objects of a kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    pub namespace: Option<String>,
    pub selectors: Selectors,
    /// At most as many; a limit of 500 or more is none.
    pub limit: Option<usize>,
    pub proceed: Option<Continue>,
    /// As the client gave it.
    pub version: Option<Revision>,
}

/// Where a list goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continue {
    /// Of the first page.
    pub revision: Revision,
    pub after: Id,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Watch {
    pub bookmarks: bool,
    /// What is there first, and then a bookmark.
    pub initial: bool,
    pub timeout: Duration,
}

/// A request that changes something.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    pub kind: Kind,
    pub namespace: Option<String>,
    /// `None`: as the body says, or all of a listing.
    pub name: Option<String>,
    pub verb: Verb,
    pub patch: Option<PatchType>,
    pub options: Options,
    /// Of a collection that is deleted.
    pub selectors: Selectors,
    pub form: Form,
}

/// A request about a part of a device: what it is asked, or told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steer {
    pub part: Part,
    pub id: Id,
    pub verb: Verb,
    pub patch: Option<PatchType>,
    pub dry_run: bool,
    pub form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 6902.
    Json,
    /// RFC 7396.
    Merge,
    /// As Merge, but lists with keys are merged by them.
    Strategic,
    Apply,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    pub dry_run: bool,
    pub force: bool,
    pub manager: String,
    pub validation: Validation,
}

/// What becomes of fields that a kind does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Validation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

impl Write {
    /// The options of a delete may stand in its body.
    pub fn with_options(mut self, body: &serde_json::Value) -> Result<Self, Refusal> {
        if matches!(self.verb, Verb::Delete | Verb::DeleteCollection) {
            match body.get("dryRun").and_then(serde_json::Value::as_array).map(Vec::as_slice) {
                None | Some([]) => {}
                Some([all]) if all == "All" => self.options.dry_run = true,
                Some(_) => return Err(Refusal::bad_request("dryRun: only [\"All\"] is known")),
            }
        }
        Ok(self)
    }
}

/// How long a watch lasts that does not say so: clients begin anew when it ends.
const WATCH: Duration = Duration::from_secs(30 * 60);

/// As long as somebody may ask for.
const MAX_WATCH: Duration = Duration::from_secs(24 * 3600);

/// Of a field manager's name, as Kubernetes has it.
const MAX_MANAGER: usize = 128;

impl Call {
    pub fn parse(request: &Request<'_>) -> Result<Self, Refusal> {
        let levels: Vec<&str> = request.path.trim_matches('/').split('/').collect();
        let is_get = request.method == Method::Get;
        match levels.as_slice() {
            ["version"] if is_get => Ok(Self::Version),
            ["api"] if is_get => Ok(Self::Groups { core: true, aggregated: aggregated(request.accept) }),
            ["apis"] if is_get => Ok(Self::Groups { core: false, aggregated: aggregated(request.accept) }),
            ["openapi", "v3"] if is_get => Ok(Self::OpenApi),
            ["openapi", "v3", "api", version] if is_get => {
                Ok(Self::OpenApiOf { group: String::new(), version: (*version).to_owned() })
            }
            ["openapi", "v3", "apis", group, version] if is_get => {
                Ok(Self::OpenApiOf { group: (*group).to_owned(), version: (*version).to_owned() })
            }
            ["apis", group] if is_get => Ok(Self::Group { group: (*group).to_owned() }),
            ["apis", "authentication.k8s.io", "v1", "selfsubjectreviews"]
                if request.method == Method::Post =>
            {
                Ok(Self::WhoAmI)
            }
            ["apis", "authorization.k8s.io", "v1", "selfsubjectaccessreviews"]
                if request.method == Method::Post =>
            {
                Ok(Self::MayI)
            }
            ["api", version, rest @ ..] => below("", version, rest, request),
            ["apis", group, version, rest @ ..] => below(group, version, rest, request),
            _ => Err(Refusal::no_such_path()),
        }
    }

    /// What it would do to which kind, or to which part of it, for who may do what.
    pub fn needs(&self) -> Option<(Verb, Kind, &'static str)> {
        match self {
            Self::Get { kind, .. } => Some((Verb::Get, *kind, "")),
            Self::List { kind, .. } => Some((Verb::List, *kind, "")),
            Self::Watch { kind, .. } => Some((Verb::Watch, *kind, "")),
            Self::Write(write) => Some((write.verb, write.kind, "")),
            Self::Steer(steer) => Some((steer.verb, Kind::Device, steer.part.as_str())),
            Self::Version
            | Self::Groups { .. }
            | Self::Group { .. }
            | Self::Resources { .. }
            | Self::OpenApi
            | Self::OpenApiOf { .. }
            | Self::WhoAmI
            | Self::MayI => None,
        }
    }
}

/// The version of aggregated discovery that the client understands best.
fn aggregated(accept: &str) -> Option<&'static str> {
    let wanted = |version: &str| {
        accept.split(',').any(|one| {
            one.contains("as=APIGroupDiscoveryList")
                && one.split(';').any(|parameter| parameter.trim() == format!("v={version}"))
        })
    };
    ["v2", "v2beta1"].into_iter().find(|version| wanted(version))
}

fn below(group: &str, version: &str, rest: &[&str], request: &Request<'_>) -> Result<Call, Refusal> {
    let kind = |plural: &str| Kind::find(group, version, plural).ok_or_else(Refusal::no_such_path);
    let (kind, namespace, name, sub) = match rest {
        [] if request.method == Method::Get => {
            return Ok(Call::Resources { group: group.to_owned(), version: version.to_owned() });
        }
        ["namespaces", namespace, plural] => (kind(plural)?, Some(*namespace), None, None),
        ["namespaces", namespace, plural, name] => (kind(plural)?, Some(*namespace), Some(*name), None),
        ["namespaces", namespace, plural, name, sub] => {
            (kind(plural)?, Some(*namespace), Some(*name), Some(*sub))
        }
        [plural] => (kind(plural)?, None, None, None),
        [plural, name] => (kind(plural)?, None, Some(*name), None),
        [plural, name, sub] => (kind(plural)?, None, Some(*name), Some(*sub)),
        _ => return Err(Refusal::no_such_path()),
    };
    if namespace.is_some() && !kind.info().namespaced {
        return Err(Refusal::no_such_path());
    }
    if name.is_some() && kind.info().namespaced && namespace.is_none() {
        return Err(Refusal::no_such_path());
    }
    of_kind(kind, namespace, name, sub, request)
}

fn of_kind(
    kind: Kind,
    namespace: Option<&str>,
    name: Option<&str>,
    sub: Option<&str>,
    request: &Request<'_>,
) -> Result<Call, Refusal> {
    let query = Query::parse(request.query)?;
    let form = Form::of(request.accept, &query)?;
    if let (Some(part), Some(name)) = (sub.and_then(|sub| Part::of(kind, sub)), name) {
        return of_part(part, Id::new(namespace, name), request, (&query, form)).map(Call::Steer);
    }
    match sub {
        None => {}
        Some("status") if kind.info().has_status && request.method == Method::Get => {}
        Some("status") if kind.info().has_status => {
            return Err(Refusal::not_allowed(format!(
                "the status of {} is what the node knows: it is read, not written",
                kind.info().plural
            )));
        }
        Some(_) => return Err(Refusal::no_such_path()),
    }
    let is_watch = query.flag("watch");
    let verb = match (request.method, name) {
        (Method::Get, _) if is_watch => Verb::Watch,
        (Method::Get, Some(_)) => Verb::Get,
        (Method::Get, None) => Verb::List,
        (Method::Post, None) => Verb::Create,
        (Method::Put, Some(_)) => Verb::Update,
        (Method::Patch, Some(_)) => Verb::Patch,
        (Method::Delete, Some(_)) => Verb::Delete,
        (Method::Delete, None) => Verb::DeleteCollection,
        (Method::Post, Some(_)) | (Method::Put | Method::Patch, None) => {
            return Err(Refusal::not_allowed(
                "the server does not allow this method on the requested resource",
            ));
        }
    };
    let mut selectors = Selectors::parse(&query.text("labelSelector"), &query.text("fieldSelector"))?;
    Ok(match (verb, name) {
        (Verb::Get, Some(name)) => Call::Get { kind, id: Id::new(namespace, name), form },
        (Verb::List, _) => Call::List { kind, of: Listing::parse(namespace, selectors, &query)?, form },
        (Verb::Watch, name) => {
            if let Some(name) = name {
                selectors.name_is(name);
            }
            let of = Listing::parse(namespace, selectors, &query)?;
            Call::Watch { kind, of, form, watch: Watch::parse(&query)? }
        }
        (verb, name) => Call::Write(Write {
            kind,
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            verb,
            patch: if verb == Verb::Patch { Some(PatchType::of(request.content_type)?) } else { None },
            options: Options::parse(&query, request.user_agent)?,
            selectors,
            form,
        }),
    })
}

fn of_part(
    part: Part,
    id: Id,
    request: &Request<'_>,
    (query, form): (&Query, Form),
) -> Result<Steer, Refusal> {
    if query.flag("watch") {
        return Err(Refusal::not_allowed(format!("{part} is not watched by itself: watch the device")));
    }
    let verb = match request.method {
        Method::Get => Verb::Get,
        Method::Post => Verb::Create,
        Method::Put => Verb::Update,
        Method::Patch => Verb::Patch,
        Method::Delete => Verb::Delete,
    };
    if !part.verbs().contains(&verb) {
        let may: Vec<&str> = part.verbs().iter().map(|verb| verb.as_str()).collect();
        let why =
            format!("{verb} of {part} makes no sense: of a device's {part} there are {}", may.join(", "));
        return Err(Refusal::not_allowed(why));
    }
    let patch = if verb == Verb::Patch { Some(PatchType::of(request.content_type)?) } else { None };
    let Options { dry_run, .. } = Options::parse(query, request.user_agent)?;
    Ok(Steer { part, id, verb, patch, dry_run, form })
}

impl Form {
    /// The first that is understood.
    fn of(accept: &str, query: &Query) -> Result<Self, Refusal> {
        for one in accept.split(',').map(str::trim) {
            let mut parameters = one.split(';').map(str::trim);
            let media = parameters.next().unwrap_or_default();
            let like = parameters.find_map(|parameter| parameter.strip_prefix("as="));
            match (media, like) {
                ("application/json", Some("Table")) => return Ok(Self::Table(Include::of(query))),
                ("application/json", Some("PartialObjectMetadata" | "PartialObjectMetadataList")) => {
                    return Ok(Self::Partial);
                }
                ("application/json" | "*/*" | "application/*" | "application/yaml" | "", None) => {
                    return Ok(Self::Object);
                }
                _ => {}
            }
        }
        // Typed clients ask for protobuf alone at times, and read JSON where that is answered.
        if accept.contains("protobuf") && accept.contains("json") {
            return Ok(Self::Object);
        }
        Err(Refusal::new(
            406,
            "NotAcceptable",
            "only the following media types are accepted: application/json, application/json;as=Table;v=v1;g=meta.k8s.io",
        ))
    }
}

impl Include {
    fn of(query: &Query) -> Self {
        match query.text("includeObject").as_str() {
            "None" => Self::None,
            "Object" => Self::Object,
            _ => Self::Metadata,
        }
    }
}

impl Listing {
    fn parse(namespace: Option<&str>, selectors: Selectors, query: &Query) -> Result<Self, Refusal> {
        let limit = query.number("limit")?.filter(|limit| (1..WHOLE_FROM).contains(limit));
        let proceed = match query.text("continue").as_str() {
            "" => None,
            text => Some(Continue::parse(text)?),
        };
        Ok(Self {
            namespace: namespace.map(str::to_owned),
            selectors,
            limit: limit.map(|limit| limit as usize),
            proceed,
            version: query.number("resourceVersion")?.map(Revision),
        })
    }
}

impl Continue {
    /// Bound to the revision of the first page: it is refused once that is forgotten.
    pub fn text(&self) -> String {
        format!("{}:{}", self.revision.0, self.after)
    }

    fn parse(text: &str) -> Result<Self, Refusal> {
        let read = |text: &str| {
            let (revision, after) = text.split_once(':')?;
            Some(Self { revision: Revision(revision.parse().ok()?), after: Id::from(after) })
        };
        read(text).ok_or_else(|| {
            Refusal::bad_request("continue: is no token of this server's; list from the beginning")
        })
    }
}

impl Watch {
    fn parse(query: &Query) -> Result<Self, Refusal> {
        let timeout = query.number("timeoutSeconds")?.map_or(WATCH, Duration::from_secs).min(MAX_WATCH);
        Ok(Self {
            bookmarks: query.flag("allowWatchBookmarks"),
            initial: query.flag("sendInitialEvents"),
            timeout,
        })
    }
}

impl PatchType {
    fn of(content_type: &str) -> Result<Self, Refusal> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            _ => Err(Refusal::new(
                415,
                "UnsupportedMediaType",
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, \
                 application/strategic-merge-patch+json, application/apply-patch+yaml",
            )),
        }
    }
}

impl Options {
    fn parse(query: &Query, user_agent: &str) -> Result<Self, Refusal> {
        let dry_run = match query.text("dryRun").as_str() {
            "" => false,
            "All" => true,
            other => return Err(Refusal::bad_request(format!("dryRun: '{other}' is not known, only All"))),
        };
        let validation = match query.text("fieldValidation").as_str() {
            "" | "Warn" => Validation::Warn,
            "Strict" => Validation::Strict,
            "Ignore" => Validation::Ignore,
            other => {
                return Err(Refusal::bad_request(format!(
                    "fieldValidation: '{other}' is not known; use Strict, Warn or Ignore"
                )));
            }
        };
        let manager = match query.text("fieldManager") {
            given if !given.is_empty() => given,
            _ => user_agent.split('/').next().unwrap_or_default().to_owned(),
        };
        if manager.len() > MAX_MANAGER {
            return Err(Refusal::bad_request(format!("fieldManager: is over {MAX_MANAGER} bytes long")));
        }
        let manager = if manager.is_empty() { "unknown".to_owned() } else { manager };
        Ok(Self { dry_run, force: query.flag("force"), manager, validation })
    }
}

#[cfg(test)]
mod tests;
