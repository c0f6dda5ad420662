//! The shells: driver, store thread, admin socket, joining, the command line and the demo.

pub mod admin;
pub mod api;
pub mod backup;
pub mod cli;
mod cloud_store;
pub mod commands;
mod damage;
pub mod demo;
mod dns;
pub mod driver;
pub mod exit;
mod fleet;
pub mod heap;
pub mod identity;
pub mod join;
mod label;
mod lines;
mod manifests;
mod mapper;
pub mod metrics;
mod mqtt;
mod names;
pub mod node;
mod otlp;
mod page;
pub mod patience;
mod ping;
mod policy;
mod records;
#[cfg(feature = "etcd")]
pub mod replica;
pub mod restore;
mod route;
mod rule;
pub mod shutdown;
mod status;
pub mod store;
mod table;
mod top;
mod trace;
mod twin;
pub mod upstream;
#[cfg(feature = "etcd")]
mod waiting;
mod wireguard;
