//! The cases. Each starts what it needs and says why it stopped; [`with_cases`](crate::with_cases) lists them.

pub(crate) mod bronze;
pub(crate) mod gold;
pub(crate) mod silver;

mod driving;
