//! The KubeBus node: the composition of all parts.
//!
//! [`Edge`] and [`Cloud`] are pure: they take an [`Input`] and the time, and give [`Output`]s. Two players play them:
//! `io/driver.rs` with sockets and a disk, and `simulations/` with a seed. What a node must not do is say something
//! that a crash could undo; [`journal`] keeps that order for all parts alike.
//!
//! Reading order: [`seam`] (what goes in and out), [`edge`], [`cloud`], [`journal`], `mesh` (apps' messages between
//! sites), then `io/driver.rs`.

pub mod admin;
pub mod audit;
pub mod checkup;
pub mod clients;
pub mod cloud;
pub mod config;
pub mod diagnose;
pub mod edge;
pub mod health;
pub mod history;
#[cfg(feature = "io")]
pub mod io;
pub mod journal;
pub mod names;
pub mod renewal;
pub mod resources;
pub mod seam;
pub mod sessions;
pub mod standby;
pub mod steering;

mod broker_rows;
mod herald;
mod interest;
mod mesh;
pub mod page;
pub mod policy_test;
pub mod route_query;
#[cfg(test)]
mod two_nodes;
pub mod users;
mod veil;
pub mod wireguard;

pub use cloud::Cloud;
pub use edge::Edge;
pub use seam::{Input, Node, Output};
pub use standby::Standby;
