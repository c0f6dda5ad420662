//! The cloud side of a cluster: who belongs to it, which addresses they hold, and what each edge must know.
//!
//! Everything here reads and writes the cloud's [`metadata::Keyspace`]; what is written in one cycle is one commit.
//! The pure modules hold no state of their own beside it, except the [`Binder`]'s index, which is loaded from it.
//!
//! | module | noun | keys |
//! |---|---|---|
//! | [`token`] | an invitation: site, LANs, uses, expiry | `/c/token/<id>` |
//! | [`join`] | the conversation that lets a node in, and its checks | all of these at once |
//! | [`renew`] | the conversation that gives an edge its next certificate | `/c/node/<name>` |
//! | [`nodes`] | who is in | `/c/node/<name>` |
//! | [`plan`], [`lease`], [`lan`] | the address plan, who holds what, what may lie behind an edge | `/c/lease/..`, `/e/<edge>/lease` |
//! | [`advert`] | LANs that an edge names itself, and that somebody approves | `/c/advert/<edge>` |
//! | [`route`] | which prefix lies behind which node | `/all/route/<prefix>` |
//! | [`clash`], `retired` | virtual prefixes for LANs that more than one site has | `/c/lan/<prefix>` |
//! | [`site`] | which node is in which site | `/all/site/<node>` |
//! | [`label`] | what access policies select sites and edges by | `/c/label/..` |
//! | [`wireguard`] | stock WireGuard clients and their gateways | `/c/wireguard/..`, `/e/<edge>/wireguard/..` |
//! | [`role`] | what somebody may do | - |
//! | [`user`] | who is known, and which role he has | `/all/user/<name>` |
//! | [`client`] | certificates of mappers and apps, and which of them were revoked | `/c/client/..`, `/all/client/..` |
//! | [`access`] | who may begin to talk to whom over the overlay | `/e/<edge>/access/..` |
//! | [`host`] | names of machines on LANs | `/all/host/<site>/<name>` |
//! | [`cluster`] | the cloud's own part at its start | its lease and routes |
//! | [`resource`] | manifests, checked and stored | `/c/resource/<kind>/<ns>/<name>` |
//! | [`binding`] | copies to each edge what its devices need | `/e/<edge>/{device,model,policy,rule}/..` |
//! | [`api`] | all of that with Kubernetes' conventions | `/c/meta/..`, `/c/gone/..` |
//! | [`event`] | what happened, for people | `/c/event/<ns>/<name>` |
//! | `io` | the certificate authority and its key file | - |
//!
//! ```text
//! JoinRequest --> join --+--> token (one use less)
//!                        +--> nodes (record)            manifests --> resource --> binding --> /e/<edge>/..
//!                        +--> lease, route (addresses)                                |
//!                        +--> io::ca (certificate)                 nodes, models -----'
//! ```
//! Order at a cloud's start: open the authority, load the keyspace, [`Cluster::establish`], [`Binder::load`] and
//! [`Binder::reconcile_all`]; then answer joins.

pub mod access;
pub mod advert;
pub mod api;
pub mod binding;
pub mod clash;
pub mod client;
pub mod cluster;
pub mod endpoints;
pub mod event;
pub mod host;
pub mod join;
pub mod label;
pub mod lan;
pub mod lease;
pub mod nodes;
pub mod pem;
pub mod plan;
pub mod record;
pub mod renew;
pub mod resource;
mod retired;
pub mod role;
pub mod route;
pub mod site;
pub mod token;
pub mod user;
pub mod wireguard;

#[cfg(feature = "io")]
pub mod io;

pub use binding::{Binder, Placement};
pub use cluster::{CloudSubnets, Cluster};
pub use join::handle_join;
pub use lan::Lan;
pub use plan::Plan;
pub use renew::handle_renew;
pub use resource::Manifest;
