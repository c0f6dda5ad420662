//! Devices steered over the resource API: by the parts `desired`, `commands` and `authority` of each.
//!
//! These are other doors to what `/kubebus/v1` asks for: the same [`AdminRequest`]s, carried out by the same functions, so
//! that authority, interlocks and expiry refuse with the same words. What is special to them is how they are written
//! ([`controller::api::part`]), and that a wish may have an id (`ids`).

mod ids;

use bus::Now;
use bus::twin::{DeviceId, Json};
use controller::api::call::Steer;
use controller::api::object::uid_of;
use controller::api::part::desired::Held;
use controller::api::part::{authority, commands, desired};
use controller::api::{Id, Kind, Layout, Part, Refusal, Verb};
use controller::role::{self, Asker, Role};
use device_twin::TwinView;
use device_twin::authority::Holder;
use device_twin::command::{CommandView, RESET_RULE};
use metadata::Keyspace;
use serde_json::Value;

use crate::admin::{AdminError, AdminRequest, AdminResponse, AuthorityChange};
use crate::resources::as_refusal;
use ids::Named;

/// What is asked of a part of a device, or told it.
#[derive(Debug, Clone, PartialEq)]
pub struct Steering {
    pub call: Steer,
    pub body: Value,
    pub asker: Asker,
}

impl Steering {
    pub(crate) fn writes(&self) -> bool {
        self.call.verb.writes() && !self.call.dry_run
    }
}

/// What came of it: the part as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct Steered {
    pub is_new: bool,
    pub object: Value,
    pub warnings: Vec<String>,
}

impl Steered {
    fn shown(object: Value) -> Self {
        Self { is_new: false, object, warnings: Vec::new() }
    }
}

/// What a node must know to be steered.
pub(crate) trait Helm {
    const LAYOUT: Layout;

    fn keyspace(&mut self) -> &mut Keyspace;

    /// Whether the device is one of this node's.
    fn knows(&self, device: &DeviceId) -> bool;

    /// Its properties, and what is wished of them.
    fn views(&self, device: &DeviceId, now: Now) -> Vec<TwinView>;

    /// What they are held to.
    fn held(&self, views: &[TwinView], device: &DeviceId, now: Now) -> Held;

    fn commands(&self, device: &DeviceId, now: Now) -> Vec<CommandView>;

    /// Whether a patch of what is desired would be taken.
    fn may_patch(&self, device: &DeviceId, patch: &Json, now: Now) -> Result<(), AdminError>;

    /// Carries out what somebody asks.
    fn ask(&mut self, asker: &Asker, request: AdminRequest, now: Now) -> AdminResponse;
}

pub(crate) fn steer(helm: &mut impl Helm, steering: &Steering, now: Now) -> Result<Steered, Refusal> {
    let Steering { call, .. } = steering;
    let info = Kind::Device.info();
    let known = call.id.device().filter(|device| helm.knows(device));
    let device = known.ok_or_else(|| Refusal::not_found(info.group, info.plural, call.id.name()))?;
    match (call.part, call.verb) {
        (Part::Desired, Verb::Get) => Ok(Steered::shown(desired_of(helm, &call.id, &device, now))),
        (Part::Desired, _) => wish(helm, &device, steering, now),
        (Part::Commands, Verb::Get) => {
            Ok(Steered::shown(commands::list(&call.id, &helm.commands(&device, now))))
        }
        (Part::Commands, _) => order(helm, &device, steering, now),
        (Part::Authority, Verb::Get) => Ok(Steered::shown(held(helm, &device, call, now))),
        (Part::Authority, _) => move_authority(helm, &device, steering, now),
    }
}

fn layout<H: Helm>(_: &H) -> Layout {
    H::LAYOUT
}

/// The part desired as it is now.
fn desired_of(helm: &mut impl Helm, id: &Id, device: &DeviceId, now: Now) -> Value {
    let views = helm.views(device, now);
    let held = helm.held(&views, device, now);
    let uid = uid_of(Kind::Device, id, helm.keyspace());
    desired::object(id, &views, &held, &uid)
}

fn wish<H: Helm>(helm: &mut H, device: &DeviceId, steering: &Steering, now: Now) -> Result<Steered, Refusal> {
    let Steering { call, body, asker } = steering;
    let before = desired_of(helm, &call.id, device, now);
    let uid = uid_of(Kind::Device, &call.id, helm.keyspace());
    let named = desired::named(&call.id, body, call.patch)?;
    let named = named.map(|(id, what)| Named::new(H::LAYOUT, device, &uid, id, &what));
    // Before anything else is looked at: what was read is old by this very wish.
    if let Some(named) = &named
        && named.is_known(helm.keyspace(), now.wall)?
    {
        let warnings = vec![format!("{} was taken before: nothing is wished anew", named.id)];
        return Ok(Steered { warnings, ..Steered::shown(before) });
    }
    let wished = desired::wished(&call.id, body, call.patch, &before)?;
    let patch = wished.json()?;
    let is_none = wished.values.is_empty();
    if call.dry_run {
        if !is_none {
            helm.may_patch(device, &patch, now).map_err(|error| as_refusal(&error))?;
        }
        return Ok(Steered { warnings: unchanged(&wished), ..Steered::shown(before) });
    }
    if !is_none {
        let request = AdminRequest::PatchTwin { device: device.clone(), patch };
        helm.ask(asker, request, now).map_err(|error| as_refusal(&error))?;
    }
    let mut object = desired_of(helm, &call.id, device, now);
    if let Some(named) = named {
        named.remember(helm.keyspace(), now.wall);
        object["metadata"]["annotations"][desired::ID] = named.id.to_string().into();
    }
    Ok(Steered { warnings: unchanged(&wished), ..Steered::shown(object) })
}

/// Told to who wished nothing at all.
fn unchanged(wished: &desired::Wished) -> Vec<String> {
    let warning = |name: &String| {
        format!("{name}: that is desired already, so it is no new wish; a merge patch wishes it again")
    };
    let names = wished.unchanged.iter().filter(|_| wished.values.is_empty());
    names.map(warning).collect()
}

fn order(helm: &mut impl Helm, device: &DeviceId, steering: &Steering, now: Now) -> Result<Steered, Refusal> {
    let Steering { call, body, asker } = steering;
    let (name, order) = commands::order(&call.id, body)?;
    may_order(asker, &name)?;
    not_dry(call)?;
    let is_given = |views: &[CommandView]| {
        let id = order.id.clone();
        views.iter().any(|view| Some(&view.command.id) == id.as_ref())
    };
    let is_new = !is_given(&helm.commands(device, now));
    let request = AdminRequest::Command { device: device.clone(), name, order };
    let taken = helm.ask(asker, request, now).map_err(|error| as_refusal(&error))?;
    let views = helm.commands(device, now);
    let view = views.iter().find(|view| taken["id"] == view.command.id.to_string());
    let object = view.map_or(taken, |view| commands::object(&call.id, view));
    Ok(Steered { is_new, ..Steered::shown(object) })
}

/// Who may give a command over one door may over the other.
fn may_order(asker: &Asker, command: &str) -> Result<(), Refusal> {
    let word = if command == RESET_RULE { RESET_RULE } else { "*" };
    let path = format!("/kubebus/v1/twins/_/_/commands/{word}");
    let roles = role::paths::roles("POST", &path);
    if roles.contains(&asker.role) {
        return Ok(());
    }
    let roles: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    Err(Refusal::forbidden(format!(
        "{} is {}, and may not give the command {word}: that takes the role {}",
        asker.who,
        asker.role,
        roles.join(" or ")
    )))
}

/// Only the device's edge can tell what would become of it.
fn not_dry(call: &Steer) -> Result<(), Refusal> {
    match call.dry_run {
        true => Err(Refusal::bad_request(format!("dryRun: {} is not tried without being done", call.part))),
        false => Ok(()),
    }
}

fn held(helm: &impl Helm, device: &DeviceId, call: &Steer, now: Now) -> Value {
    let views = helm.views(device, now);
    let authority = views.into_iter().next().map(|view| view.authority).unwrap_or_default();
    authority::object(&call.id, &authority)
}

fn move_authority(
    helm: &mut impl Helm,
    device: &DeviceId,
    steering: &Steering,
    now: Now,
) -> Result<Steered, Refusal> {
    let Steering { call, body, asker } = steering;
    not_dry(call)?;
    let before = held(helm, device, call, now);
    let Some(wanted) = authority::moved(&call.id, body, call.patch, &before)? else {
        return Ok(Steered::shown(before));
    };
    let own = match layout(helm) {
        Layout::Cloud => Holder::Cloud,
        Layout::Edge => Holder::Edge,
    };
    let authority::Move { to, reason, lasting } = wanted;
    let change = match to == own {
        true => AuthorityChange::Take { reason, lasting },
        false => AuthorityChange::HandBack { reason },
    };
    let request = AdminRequest::Authority { device: device.clone(), change };
    helm.ask(asker, request, now).map_err(|error| as_refusal(&error))?;
    Ok(Steered::shown(held(helm, device, call, now)))
}

/// A field of a device that `asker` may not change.
pub(crate) fn not_his(asker: &Asker, why: &str) -> Refusal {
    Refusal::forbidden(format!(
        "{} is {}, and may not change that of a device: {why}; that takes the role {}, and this one may wish: \
         spec.properties[].desired.value",
        asker.who,
        asker.role,
        Role::Admin
    ))
}

#[cfg(test)]
pub(crate) fn asker(role: &str) -> Asker {
    Asker { who: "user/test".parse().expect("a name"), role: role.parse().expect("a role") }
}
