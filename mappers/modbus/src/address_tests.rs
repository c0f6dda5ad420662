use super::*;
use serde_json::{Value, json};

fn read(place: Value) -> Result<Address, String> {
    serde_json::from_value(place).map_err(|e| e.to_string())
}

fn address(table: Table, start: u16, content: Content) -> Address {
    Address { table, start, content, swap: Swap::default() }
}

#[test]
fn our_addresses_are_read_as_documented() {
    let table = [
        (json!({"coil": 3}), address(Table::Coil, 3, Content::Bits(1))),
        (json!({"discrete": 4, "type": "bool"}), address(Table::Discrete, 4, Content::Bits(1))),
        (json!({"holding": 40}), address(Table::Holding, 40, Content::Number(Kind::U16))),
        (json!({"input": "40", "type": "f64"}), address(Table::Input, 40, Content::Number(Kind::F64))),
        (json!({"holding": 40, "bit": 15}), address(Table::Holding, 40, Content::RegisterBit(15))),
        (
            json!({"holding": 40, "type": "string", "registers": 8}),
            address(Table::Holding, 40, Content::Text { registers: 8 }),
        ),
    ];
    for (place, expected) in table {
        assert_eq!(read(place.clone()), Ok(expected), "{place}");
    }
    let swapped = |order| read(json!({"holding": 0, "type": "u32", "order": order})).unwrap().swap;
    let swaps = ["abcd", "cdab", "badc", "dcba"].map(swapped).map(|swap| (swap.bytes, swap.registers));
    assert_eq!(swaps, [(false, false), (false, true), (true, false), (true, true)]);
    let f32 = read(json!({"input": 40, "type": "f32"})).unwrap();
    assert_eq!(f32.span(), Span { area: 4, start: 40, len: 2 });
}

#[test]
fn kubeedges_visitors_are_read_as_they_are() {
    let visitor = json!({"register": "HoldingRegister", "offset": 2, "limit": 1, "isSwap": false,
                         "isRegisterSwap": true, "dataType": "float"});
    let expected = Address {
        swap: Swap { bytes: false, registers: true },
        ..address(Table::Holding, 2, Content::ByType { registers: 1 })
    };
    assert_eq!(read(visitor), Ok(expected));
    let coils = read(json!({"register": "CoilRegister", "offset": "2", "limit": "8"})).unwrap();
    assert_eq!(coils, address(Table::Coil, 2, Content::Bits(8)));
    let unlimited = read(json!({"register": "InputRegister", "offset": 2, "limit": 0})).unwrap();
    assert_eq!(unlimited.len(), 1);

    let content = |limit, value_type| {
        read(json!({"register": "HoldingRegister", "offset": 0, "limit": limit})).unwrap().content(value_type)
    };
    let number = |kind| Ok(Content::Number(kind));
    assert_eq!(content(1, ValueType::Float), number(Kind::U16));
    assert_eq!(content(2, ValueType::Float), number(Kind::F32));
    assert_eq!(content(4, ValueType::Float), number(Kind::F64));
    assert_eq!(content(2, ValueType::Int), number(Kind::U32));
    assert_eq!(content(4, ValueType::Int), number(Kind::U64));
    assert_eq!(content(6, ValueType::String), Ok(Content::Text { registers: 6 }));
    assert!(content(3, ValueType::Int).unwrap_err().contains("limit"));
}

#[test]
fn an_error_names_the_field() {
    let table = [
        (json!({}), "which address?"),
        (json!({"holding": 1, "input": 1}), "only one of"),
        (json!({"holding": 1, "register": "CoilRegister", "offset": 1}), "only one of"),
        (json!({"holding": -1}), "-1 is out of range"),
        (json!({"holding": 65536}), "65536 is out of range"),
        (json!({"holding": 65535, "type": "f32"}), "beyond 65535"),
        (json!({"holding": 1, "type": "u8"}), "unknown variant `u8`"),
        (json!({"holding": 1, "order": "acbd"}), "unknown variant `acbd`"),
        (json!({"holding": 1, "bit": 16}), "bit: 0 to 15"),
        (json!({"holding": 1, "bit": 1, "type": "u16"}), "type: "),
        (json!({"holding": 1, "type": "bool"}), "bit: which"),
        (json!({"coil": 1, "type": "u16"}), "type: a coil"),
        (json!({"coil": 1, "bit": 1}), "bit: "),
        (json!({"holding": 1, "type": "string"}), "registers: how many"),
        (json!({"holding": 1, "type": "string", "registers": 126}), "126 addresses"),
        (json!({"holding": 1, "registers": 2}), "registers: only"),
        (json!({"holding": 1, "limit": 2}), "limit"),
        (json!({"register": "HoldingRegister", "offset": 1, "type": "f32"}), "type"),
        (json!({"register": "HoldingRegister"}), "offset: "),
        (json!({"offset": 1}), "register: "),
        (json!({"register": "CoilRegister", "offset": 1, "limit": 17}), "limit: "),
        (json!({"holdings": 1}), "unknown field `holdings`"),
    ];
    for (place, expected) in table {
        let error = read(place.clone()).unwrap_err();
        assert!(error.contains(expected), "{place}: {error}");
    }
}
