//! Values in JSON and text: how a mapper picks one out of what a device says ([`Sought`]), and puts one into what it is
//! told ([`Template`]). Shared by the mappers whose devices speak neither registers nor typed messages.
//!
//! Pure: bytes in, values out.

mod pick;
mod pointer;
mod template;
mod time;

pub use pick::{Body, NotAValue, Picked, Sought, Words, json_of, text_of};
pub use pointer::{BadPointer, Pointer};
pub use template::{BadTemplate, Template};
