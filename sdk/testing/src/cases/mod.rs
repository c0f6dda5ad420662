//! The cases. Each starts what it needs and says why it stopped; [`with_cases`](crate::with_cases) lists them.

pub mod bronze;
pub mod gold;
pub mod silver;

mod driving;
