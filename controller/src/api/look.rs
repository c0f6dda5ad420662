//! How one client is shown objects. Clients with the same look get the same bytes.

use bus::UnixMillis;
use serde::Serialize;
use serde_json::Value;

use super::call::Form;
use super::list::partial;
use super::{Item, Kind, object, table};

/// A form, and what is left out.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub form: Form,
    /// Takes out of an object what this client may not see. There is one such function: looks are told apart by whether
    /// they have it.
    pub veil: Option<fn(&mut Value)>,
}

impl PartialEq for Look {
    fn eq(&self, other: &Self) -> bool {
        (self.form, self.veil.is_some()) == (other.form, other.veil.is_some())
    }
}

impl Look {
    /// All of it.
    pub fn whole(form: Form) -> Self {
        Self { form, veil: None }
    }

    /// An item as this client may see it, whole.
    pub fn object(&self, kind: Kind, item: Item) -> Value {
        let mut object = object::render(kind, item);
        if let Some(veil) = self.veil {
            veil(&mut object);
        }
        object
    }

    /// Writes an item as JSON: an object, or the row of a table.
    pub(super) fn write(&self, kind: Kind, item: Item, now: UnixMillis, into: &mut Vec<u8>) {
        let object = self.object(kind, item);
        match self.form {
            Form::Object => write(&object, into),
            Form::Partial => write(&partial(object), into),
            Form::Table(include) => write(&table::row(kind, object, include, now), into),
        }
    }

    /// Whether what is shown follows from the object alone, and not from the time too: tables say ages.
    pub(super) fn is_ageless(&self) -> bool {
        !matches!(self.form, Form::Table(_))
    }
}

/// As JSON.
pub(super) fn write(value: &impl Serialize, into: &mut Vec<u8>) {
    // Neither a vector nor a value refuses anything.
    let written = serde_json::to_writer(into, value);
    debug_assert!(written.is_ok());
}
