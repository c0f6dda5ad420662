use super::*;
use proptest::prelude::*;
use serde_json::json;

fn at(place: serde_json::Value) -> Address {
    serde_json::from_value(place).unwrap()
}

#[test]
fn every_order_puts_the_bytes_where_its_name_says() {
    let read = |order| {
        let words = [0x0102, 0x0304];
        decode(&at(json!({"holding": 0, "type": "u32", "order": order})), ValueType::Int, &words)
    };
    assert_eq!(read("abcd"), Ok(Value::Int(0x0102_0304)));
    assert_eq!(read("cdab"), Ok(Value::Int(0x0304_0102)));
    assert_eq!(read("badc"), Ok(Value::Int(0x0201_0403)));
    assert_eq!(read("dcba"), Ok(Value::Int(0x0403_0201)));
}

#[test]
fn values_of_each_type_are_read() {
    let read = |place, value_type, words: &[u16]| decode(&at(place), value_type, words);
    let (int, float) = (ValueType::Int, ValueType::Float);
    assert_eq!(read(json!({"holding": 0, "type": "i16"}), int, &[0xfffe]), Ok(Value::Int(-2)));
    assert_eq!(read(json!({"holding": 0, "type": "f32"}), float, &[0x4148, 0]), Ok(Value::Float(12.5)));
    assert_eq!(read(json!({"holding": 0, "bit": 3}), ValueType::Bool, &[8]), Ok(Value::Bool(true)));
    assert_eq!(read(json!({"coil": 0}), ValueType::Bool, &[1]), Ok(Value::Bool(true)));
    let coils = json!({"register": "CoilRegister", "offset": 0, "limit": 4});
    assert_eq!(read(coils, int, &[1, 0, 1, 1]), Ok(Value::Int(0b1101)));
    let text = json!({"holding": 0, "type": "string", "registers": 3});
    assert_eq!(
        read(text.clone(), ValueType::String, &[0x6162, 0x6300, 0x6464]),
        Ok(Value::Text("abc".into()))
    );
    assert_eq!(read(text, ValueType::Bytes, &[0, 1, 2]), Ok(Value::Text("AAAAAQAC".into())));
    let nan = read(json!({"holding": 0, "type": "f32"}), float, &[0x7fc0, 0]);
    assert!(nan.unwrap_err().contains("no number"));
    let large = read(json!({"holding": 0, "type": "u64"}), int, &[0xffff; 4]);
    assert!(large.unwrap_err().contains("18446744073709551615"));
}

#[test]
fn what_cannot_be_written_says_why() {
    let refused = |place, value: Value| encode(&at(place), ValueType::Int, &value).unwrap_err();
    assert!(refused(json!({"input": 1}), Value::Int(1)).contains("only be read"));
    assert!(refused(json!({"discrete": 1}), Value::Int(1)).contains("only be read"));
    assert!(refused(json!({"holding": 1, "bit": 2}), Value::Bool(true)).contains("one bit"));
    assert!(refused(json!({"holding": 1}), Value::Int(65536)).contains("does not fit"));
    assert!(refused(json!({"holding": 1, "type": "f32"}), Value::Float(1e300)).contains("does not fit"));
    assert!(refused(json!({"holding": 1}), Value::Text("x".into())).contains("no number"));
    let long = json!({"holding": 1, "type": "string", "registers": 2});
    assert!(refused(long, Value::Text("12345".into())).contains("5 bytes"));
    let coils = json!({"register": "CoilRegister", "offset": 0, "limit": 4});
    assert!(refused(coils, Value::Int(16)).contains("4 coils"));
}

#[test]
fn the_nearest_whole_number_is_written() {
    let written = encode(&at(json!({"holding": 7})), ValueType::Float, &Value::Float(214.999_999_999));
    assert_eq!(written, Ok(Request::WriteRegister { at: 7, word: 215 }));
}

fn kinds() -> impl Strategy<Value = (&'static str, ValueType, Value)> {
    let (int, float) = (ValueType::Int, ValueType::Float);
    prop_oneof![
        any::<u16>().prop_map(move |n| ("u16", int, Value::Int(n.into()))),
        any::<i16>().prop_map(move |n| ("i16", int, Value::Int(n.into()))),
        any::<u32>().prop_map(move |n| ("u32", int, Value::Int(n.into()))),
        any::<i32>().prop_map(move |n| ("i32", int, Value::Int(n.into()))),
        (0..=i64::MAX).prop_map(move |n| ("u64", int, Value::Int(n))),
        any::<i64>().prop_map(move |n| ("i64", int, Value::Int(n))),
        (-1e30f32..1e30).prop_map(move |n| ("f32", float, Value::Float(n.into()))),
        (-1e300f64..1e300).prop_map(move |n| ("f64", float, Value::Float(n))),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        (kind, value_type, value) in kinds(),
        order in prop_oneof![Just("abcd"), Just("cdab"), Just("badc"), Just("dcba")],
    ) {
        let address = at(json!({"holding": 9, "type": kind, "order": order}));
        let words = match encode(&address, value_type, &value).unwrap() {
            Request::WriteRegister { word, .. } => vec![word],
            Request::WriteRegisters { words, .. } => words,
            other @ (Request::Read { .. }
            | Request::WriteCoil { .. }
            | Request::WriteCoils { .. }
            | Request::Echo(_)
            | Request::Identify) => panic!("{other:?}"),
        };
        prop_assert_eq!(words.len(), usize::from(address.len()));
        prop_assert_eq!(decode(&address, value_type, &words), Ok(value));
    }
}
