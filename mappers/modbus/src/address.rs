//! Where a property lives in a device: our own form, and that of KubeEdge's visitors.

use kubebus_sdk::{JsonSchema, Span, ValueType};
use serde::Deserialize;

use crate::loose::{number, number_schema, switch, switch_schema};
use crate::pdu::{LONGEST_RUN, Table};

/// What a person writes. One of `coil`, `discrete`, `holding`, `input`, or KubeEdge's `register` and `offset`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(crate = "kubebus_sdk::schemars")]
#[serde(default, deny_unknown_fields)]
pub struct Place {
    /// A coil, counted from 0.
    #[serde(deserialize_with = "number")]
    #[schemars(schema_with = "number_schema")]
    coil: Option<u16>,
    /// A discrete input, counted from 0.
    #[serde(deserialize_with = "number")]
    #[schemars(schema_with = "number_schema")]
    discrete: Option<u16>,
    /// A holding register, counted from 0: what some documents call 40001 is 0.
    #[serde(deserialize_with = "number")]
    #[schemars(schema_with = "number_schema")]
    holding: Option<u16>,
    /// An input register, counted from 0.
    #[serde(deserialize_with = "number")]
    #[schemars(schema_with = "number_schema")]
    input: Option<u16>,
    /// What lies in the registers; `u16` if not given.
    #[serde(rename = "type")]
    kind: Option<Kind>,
    /// How the four bytes of a value of two registers lie in them; longer values alike. `abcd` if not given.
    order: Option<Order>,
    /// One bit of a register, 0 the lowest. It can only be read.
    #[serde(deserialize_with = "number")]
    #[schemars(schema_with = "number_schema")]
    bit: Option<u8>,
    /// Length of a `string` in registers, of two bytes each.
    #[serde(deserialize_with = "number")]
    #[schemars(schema_with = "number_schema")]
    registers: Option<u16>,

    /// KubeEdge: the table.
    register: Option<KubeEdgeTable>,
    /// KubeEdge: the first address, counted from 0.
    #[serde(deserialize_with = "number")]
    #[schemars(schema_with = "number_schema")]
    offset: Option<u16>,
    /// KubeEdge: how many registers or bits.
    #[serde(deserialize_with = "number")]
    #[schemars(schema_with = "number_schema")]
    limit: Option<u16>,
    /// KubeEdge: the bytes of each register are swapped.
    #[serde(rename = "isSwap", deserialize_with = "switch")]
    #[schemars(schema_with = "switch_schema")]
    is_swap: Option<bool>,
    /// KubeEdge: the last register comes first.
    #[serde(rename = "isRegisterSwap", deserialize_with = "switch")]
    #[schemars(schema_with = "switch_schema")]
    is_register_swap: Option<bool>,
    /// KubeEdge: not used, the model says the type.
    #[serde(rename = "dataType")]
    data_type: Option<String>,
}

/// Where a property lies in the device: one table and an address in it, and how its registers make a value.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(crate = "kubebus_sdk::schemars")]
#[serde(try_from = "Place")]
pub struct Address {
    #[schemars(skip)]
    pub(crate) table: Table,
    #[schemars(skip)]
    pub(crate) start: u16,
    #[schemars(skip)]
    pub(crate) content: Content,
    #[schemars(skip)]
    pub(crate) swap: Swap,
}

/// What is in a property's registers or bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Number(Kind),
    /// One bit of one register.
    RegisterBit(u8),
    /// So many coils or discrete inputs, the first the lowest bit of a number.
    Bits(u16),
    Text {
        registers: u16,
    },
    /// So many registers of what KubeEdge takes them for by the property's type.
    ByType {
        registers: u16,
    },
}

/// Types of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(crate = "kubebus_sdk::schemars")]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Bool,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
    String,
}

/// How bytes lie in registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(crate = "kubebus_sdk::schemars")]
#[serde(rename_all = "lowercase")]
enum Order {
    Abcd,
    Cdab,
    Badc,
    Dcba,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(crate = "kubebus_sdk::schemars")]
enum KubeEdgeTable {
    #[serde(rename = "CoilRegister")]
    Coil,
    #[serde(rename = "DiscreteInputRegister")]
    Discrete,
    #[serde(rename = "HoldingRegister")]
    Holding,
    #[serde(rename = "InputRegister")]
    Input,
}

/// What differs from the highest byte first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Swap {
    pub(crate) bytes: bool,
    pub(crate) registers: bool,
}

impl Kind {
    /// Registers of a value of its own length.
    fn registers(self) -> u16 {
        match self {
            Self::Bool | Self::U16 | Self::I16 | Self::String => 1,
            Self::U32 | Self::I32 | Self::F32 => 2,
            Self::U64 | Self::I64 | Self::F64 => 4,
        }
    }
}

impl Address {
    /// Registers or bits.
    pub(crate) fn len(&self) -> u16 {
        match self.content {
            Content::Number(kind) => kind.registers(),
            Content::RegisterBit(_) => 1,
            Content::Bits(count) => count,
            Content::Text { registers } | Content::ByType { registers } => registers,
        }
    }

    pub(crate) fn span(&self) -> Span {
        Span {
            area: u64::from(self.table.function()),
            start: u64::from(self.start),
            len: u64::from(self.len()),
        }
    }

    /// What is in it for a property of this type.
    pub(crate) fn content(&self, value_type: ValueType) -> Result<Content, String> {
        let Content::ByType { registers } = self.content else { return Ok(self.content) };
        let kind = match (value_type, registers) {
            (ValueType::String | ValueType::Bytes, _) => return Ok(Content::Text { registers }),
            (ValueType::Bool | ValueType::Int | ValueType::Float, 1) => Kind::U16,
            (ValueType::Int, 2) => Kind::U32,
            (ValueType::Int, 4) => Kind::U64,
            (ValueType::Float, 2) => Kind::F32,
            (ValueType::Float, 4) => Kind::F64,
            (ValueType::Bool | ValueType::Int | ValueType::Float | ValueType::Struct, _) => {
                return Err(format!("limit: {value_type:?} does not lie in {registers} registers"));
            }
        };
        Ok(Content::Number(kind))
    }
}

impl TryFrom<Place> for Address {
    type Error = String;

    fn try_from(place: Place) -> Result<Self, String> {
        let (table, start) = place.start()?;
        let address =
            if place.register.is_some() { place.kubeedge(table, start) } else { place.ours(table, start) }?;
        let len = address.len();
        if !(1..=LONGEST_RUN).contains(&len) {
            return Err(format!("{len} addresses at once: 1 to {LONGEST_RUN} can be read"));
        }
        if u32::from(start) + u32::from(len) > 0x1_0000 {
            return Err(format!("{}: {start} and {len} long goes beyond 65535", table.key()));
        }
        Ok(address)
    }
}

impl Place {
    fn start(&self) -> Result<(Table, u16), String> {
        let ours = [
            (Table::Coil, self.coil),
            (Table::Discrete, self.discrete),
            (Table::Holding, self.holding),
            (Table::Input, self.input),
        ];
        let mut given = ours.into_iter().filter_map(|(table, start)| Some((table, start?)));
        match (given.next(), given.next(), self.register, self.offset) {
            (Some(place), None, None, None) => Ok(place),
            (None, None, Some(table), Some(offset)) => Ok((table.into(), offset)),
            (None, None, Some(_), None) => Err("offset: which address?".to_owned()),
            (None, None, None, None) => {
                Err("which address? coil, discrete, holding or input says it, as in holding: 40".to_owned())
            }
            (None, None, None, Some(_)) => {
                Err("register: of which table? CoilRegister, DiscreteInputRegister, HoldingRegister or InputRegister"
                    .to_owned())
            }
            _ => Err("only one of coil, discrete, holding, input and register may be given".to_owned()),
        }
    }

    fn ours(&self, table: Table, start: u16) -> Result<Address, String> {
        if self.limit.is_some() || self.is_swap.is_some() || self.is_register_swap.is_some() {
            return Err(format!(
                "limit, isSwap, isRegisterSwap: only beside register, not beside {}",
                table.key()
            ));
        }
        if self.registers.is_some() && self.kind != Some(Kind::String) {
            return Err("registers: only for type: string".to_owned());
        }
        let content = match (table.has_bits(), self.kind, self.bit, self.registers) {
            (true, None | Some(Kind::Bool), None, _) => Content::Bits(1),
            (true, _, Some(_), _) => return Err(format!("bit: not of a {}", table.key())),
            (true, Some(_), ..) => return Err(format!("type: a {} is a bool", table.key())),
            (false, None | Some(Kind::Bool), Some(bit @ 0..16), _) => Content::RegisterBit(bit),
            (false, None | Some(Kind::Bool), Some(bit), _) => return Err(format!("bit: 0 to 15, not {bit}")),
            (false, Some(_), Some(_), _) => return Err("type: a bit of a register is a bool".to_owned()),
            (false, Some(Kind::Bool), None, _) => return Err("bit: which one of the register?".to_owned()),
            (false, Some(Kind::String), None, None) => return Err("registers: how many?".to_owned()),
            (false, Some(Kind::String), None, Some(registers)) => Content::Text { registers },
            (false, kind, None, _) => Content::Number(kind.unwrap_or(Kind::U16)),
        };
        let swap = self.order.map_or(Swap::default(), Order::swap);
        Ok(Address { table, start, content, swap })
    }

    fn kubeedge(&self, table: Table, start: u16) -> Result<Address, String> {
        if self.kind.is_some() || self.order.is_some() || self.bit.is_some() || self.registers.is_some() {
            let keys = "type, order, bit, registers: only beside coil, discrete, holding or input";
            return Err(format!("{keys}, not beside register"));
        }
        let len = self.limit.unwrap_or(1).max(1);
        let content = if !table.has_bits() {
            Content::ByType { registers: len }
        } else if len <= 16 {
            Content::Bits(len)
        } else {
            return Err(format!("limit: at most 16 bits, not {len}"));
        };
        let swap =
            Swap { bytes: self.is_swap.unwrap_or(false), registers: self.is_register_swap.unwrap_or(false) };
        Ok(Address { table, start, content, swap })
    }
}

impl Order {
    fn swap(self) -> Swap {
        match self {
            Self::Abcd => Swap { bytes: false, registers: false },
            Self::Cdab => Swap { bytes: false, registers: true },
            Self::Badc => Swap { bytes: true, registers: false },
            Self::Dcba => Swap { bytes: true, registers: true },
        }
    }
}

impl From<KubeEdgeTable> for Table {
    fn from(table: KubeEdgeTable) -> Self {
        match table {
            KubeEdgeTable::Coil => Self::Coil,
            KubeEdgeTable::Discrete => Self::Discrete,
            KubeEdgeTable::Holding => Self::Holding,
            KubeEdgeTable::Input => Self::Input,
        }
    }
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
