//! Users over the resource API: let in by a request for a certificate, which is signed and shown once. No private key
//! travels.

use bus::{Identity, Name, NodeId, NodeKind, Now};
use controller::api::draft;
use controller::api::{Content, Id, Item, Kind, Layout, Refusal, Verb};
use controller::join::Signed;
use controller::pem;
use controller::role::Role;
use controller::user::{self, User};
use serde_json::{Value, json};

use super::Cloud;
use super::resources::{Fields, only};
use crate::admin::{AdminError, AdminRequest, describe};
use crate::resources::{Order, Outcome, Written, as_refusal, moment};
use crate::users::{UserRequest, refused};

/// What a request begins with.
const REQUEST: &str = "CERTIFICATE REQUEST";

/// What somebody is to be.
struct Wanted {
    role: Role,
    /// A request for a certificate, DER.
    request: Option<Vec<u8>>,
    revoked: bool,
}

impl Cloud {
    pub(super) fn write_user(&mut self, order: &Order, now: Now) -> Result<Written, Refusal> {
        let (write, info) = (&order.write, Kind::User.info());
        let id = draft::id_of(write, &order.body, moment(&self.keyspace, now))?;
        let not_found = || Refusal::not_found(info.group, info.plural, id.name());
        let name = id.checked_name().ok_or_else(not_found)?;
        let before = self.item(write.kind, &id, now);
        match (write.verb, before) {
            (Verb::Create, Some(_)) => Err(Refusal::exists(info.group, info.plural, id.name())),
            (Verb::Create, None) => {
                let after = &order.body;
                only(write.kind, &id, (&Value::Null, after), &["role", "request"])?;
                draft::check_fields(write, after)?;
                let wanted = Wanted::read(&id, after)?;
                let Some(request) = wanted.request else {
                    let spec = Fields { kind: write.kind, name: id.name(), spec: &after["spec"] };
                    return Err(spec.wrong("spec.request", "is required: a CERTIFICATE REQUEST in PEM"));
                };
                self.certify((&id, &name), wanted.role, &request, order)
            }
            (_, None) => Err(not_found()),
            (Verb::Delete, Some(before)) => {
                if !write.options.dry_run {
                    self.ask_user(UserRequest::Remove { name }, now)?;
                }
                let outcome = Outcome::Gone(Box::new(before));
                Ok(Written { is_new: false, outcome, warnings: Vec::new() })
            }
            (_, Some(before)) => self.change_user(order, (&id, &name), &before, now),
        }
    }

    fn change_user(
        &mut self,
        order: &Order,
        (id, name): (&Id, &Name),
        before: &Item,
        now: Now,
    ) -> Result<Written, Refusal> {
        let write = &order.write;
        let (shown, after) = self.small_change(order, id, before)?;
        only(write.kind, id, (&shown, &after), &["role", "request", "revoked"])?;
        let (was, is) = (Wanted::read(id, &shown)?, Wanted::read(id, &after)?);
        if let Some(request) = &is.request {
            if is.revoked {
                let spec = Fields { kind: write.kind, name: id.name(), spec: &after["spec"] };
                let why =
                    "who is given a certificate is let in: say false with spec.request, or leave that out";
                return Err(spec.wrong("spec.revoked", why));
            }
            return self.certify((id, name), is.role, request, order);
        }
        if was.revoked && !is.revoked {
            let spec = Fields { kind: write.kind, name: id.name(), spec: &after["spec"] };
            let why = "he is let in again with another certificate: give spec.request";
            return Err(spec.wrong("spec.revoked", why));
        }
        let mut item = before.clone();
        if !write.options.dry_run && (was.role, was.revoked) != (is.role, is.revoked) {
            if was.role != is.role {
                self.ask_user(UserRequest::SetRole { name: name.clone(), role: is.role }, now)?;
            }
            if was.revoked != is.revoked {
                self.ask_user(UserRequest::Revoke { name: name.clone() }, now)?;
            }
            item = self.item(write.kind, id, now).ok_or_else(Refusal::no_such_path)?;
            item.revision = self.next_revision();
        }
        Ok(Written { is_new: false, outcome: Outcome::Item(Box::new(item)), warnings: Vec::new() })
    }

    /// His key is signed as his, in place of the one before, and the certificate shown.
    fn certify(
        &mut self,
        (id, name): (&Id, &Name),
        role: Role,
        request: &[u8],
        order: &Order,
    ) -> Result<Written, Refusal> {
        let node = NodeId { kind: NodeKind::User, name: name.clone() };
        let identity = Identity { cluster: self.cluster.name.clone(), node };
        let Signed { certificate_der, public_key, not_after, .. } = (self.signer)(request, &identity)
            .map_err(|why| {
                let spec = Fields { kind: Kind::User, name: id.name(), spec: &order.body["spec"] };
                spec.wrong("spec.request", &describe(&why))
            })?;
        let is_new = order.write.verb == Verb::Create;
        let user = User { name: name.clone(), role, key: public_key, not_after, revoked: None };
        let mut made = json!({ "metadata": {}, "spec": { "role": role.as_str() }, "status": {} });
        let may = user::may_put(&user, !is_new, &self.keyspace);
        may.map_err(|error| as_refusal(&refused(&error)))?;
        if !order.write.options.dry_run {
            let done = user::put(&user, !is_new, &mut self.keyspace);
            done.map_err(|error| as_refusal(&refused(&error)))?;
            self.say_users();
            made = (Kind::User.info().made)(Layout::Cloud, id, &self.keyspace).unwrap_or(made);
            made["status"]["certificate"] = pem::encode("CERTIFICATE", &certificate_der).into();
            made["status"]["authority"] = pem::encode("CERTIFICATE", &self.cluster.ca_der).into();
        }
        let item = Item { id: id.clone(), revision: self.next_revision(), content: Content::Made(made) };
        Ok(Written { is_new, outcome: Outcome::Item(Box::new(item)), warnings: Vec::new() })
    }

    fn ask_user(&mut self, request: UserRequest, now: Now) -> Result<(), Refusal> {
        let done = self.answer(AdminRequest::Users(request), now);
        done.map(drop).map_err(|error: AdminError| as_refusal(&error))
    }
}

impl Wanted {
    fn read(id: &Id, object: &Value) -> Result<Self, Refusal> {
        let spec = Fields { kind: Kind::User, name: id.name(), spec: &object["spec"] };
        let request: Option<String> = spec.parsed("request")?;
        let request = request.map(|text| pem::decode(REQUEST, &text)).transpose();
        let revoked = match object["spec"].get("revoked").filter(|revoked| !revoked.is_null()) {
            None => false,
            Some(Value::Bool(revoked)) => *revoked,
            Some(_) => return Err(spec.wrong("spec.revoked", "is neither true nor false")),
        };
        Ok(Self {
            role: spec.required("role")?,
            request: request.map_err(|why| spec.wrong("spec.request", &why.to_string()))?,
            revoked,
        })
    }
}
