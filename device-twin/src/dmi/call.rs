//! What the edge asks of a mapper, and how that can end.

use bus::Mono;
use bytes::Bytes;

/// One call to one mapper. There is never more than one to a mapper.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Comes back with the answer.
    pub id: u64,
    /// Path of the mapper's socket.
    pub address: String,
    pub method: Method,
    /// The request, encoded.
    pub body: Bytes,
    /// From here on nothing may be sent any more.
    pub expires: Option<Mono>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// No call of DMI's: whether the mapper's socket answers at all.
    Probe,
    RegisterDevice,
    UpdateDevice,
    RemoveDevice,
    /// Also for a model that the mapper has: KubeEdge's mappers put it in the other's place, and refuse an
    /// `UpdateDeviceModel` of one that they got at their registration.
    CreateDeviceModel,
    RemoveDeviceModel,
}

impl Method {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::RegisterDevice => "RegisterDevice",
            Self::UpdateDevice => "UpdateDevice",
            Self::RemoveDevice => "RemoveDevice",
            Self::CreateDeviceModel => "CreateDeviceModel",
            Self::RemoveDeviceModel => "RemoveDeviceModel",
        }
    }
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The mapper took it. DMI cannot say more: what it does with it shows in what it reports.
    Taken,
    /// The mapper says no, and why.
    Refused(String),
    /// Nothing was sent: the mapper does not answer.
    Unreachable(String),
    /// Nothing was sent: its time was over.
    Late,
    /// It was sent, and whether the mapper took it is not known.
    Lost(String),
}
